//! Addresses and routes by rtnetlink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressScope},
        link::LinkFlags,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};
use tokio::task::AbortHandle;

/// The kernel refused an address or a route.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket could be opened.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The loopback interface is missing or down.
    #[error("the loopback interface lo is down or missing; run `ip link set lo up`")]
    LoopbackDown,
    /// A request failed.
    #[error("cannot {what}; changing addresses and routes needs CAP_NET_ADMIN")]
    Request {
        /// What was attempted.
        what: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// Another route for the same range is there.
    #[error("this host has a route of its own for {0}; choose another --service-cidr")]
    RouteTaken(IpNet),
}

/// A netlink connection to the network namespace of the calling thread.
#[derive(Debug)]
pub struct Network {
    handle: Handle,
    task: AbortHandle,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// Opens the connection; its task runs on the current runtime.
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = new_connection().map_err(NetError::Open)?;
        let task = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, task })
    }

    /// Fails unless `lo` is up.
    pub async fn require_loopback_up(&self) -> Result<(), NetError> {
        self.loopback().await.map(drop)
    }

    /// Whether `lo` carries `address`.
    pub async fn has_address(&self, address: IpAddr) -> Result<bool, NetError> {
        Ok(self.find_address(address).await?.is_some())
    }

    /// Puts `address` on `lo` with global scope; one that is there already is fine.
    pub async fn add_address(&self, address: IpAddr) -> Result<(), NetError> {
        let index = self.loopback().await?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(index, address, length);
        let header = &mut request.message_mut().header;
        header.scope = AddressScope::Universe;
        // Nobody else can answer for an address on the loopback interface: no detection needed.
        if address.is_ipv6() {
            header.flags = AddressHeaderFlags::Nodad;
        }
        ignoring(request.execute().await, &[libc::EEXIST])
            .map_err(|source| request_error(format!("add address {address} to lo"), source))?;
        Ok(())
    }

    /// Takes `address` off `lo`; returns whether it was there.
    pub async fn remove_address(&self, address: IpAddr) -> Result<bool, NetError> {
        let Some(message) = self.find_address(address).await? else {
            return Ok(false);
        };
        ignoring(
            self.handle.address().del(message).execute().await,
            &[libc::EADDRNOTAVAIL],
        )
        .map_err(|source| request_error(format!("remove address {address} from lo"), source))
    }

    /// Whether there is an `unreachable` route for exactly `range`.
    pub async fn has_unreachable(&self, range: IpNet) -> Result<bool, NetError> {
        // A message with a destination would ask for one route's resolution; this asks for all.
        let all = match range {
            IpNet::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpNet::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let mut routes = self.handle.route().get(all).execute();
        while let Some(route) = routes.next().await {
            let route =
                route.map_err(|source| request_error("list the routes".to_owned(), source))?;
            if route.header.kind == RouteType::Unreachable && destination(&route) == Some(range) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds an `unreachable` route; one that is there already is fine, another kind of route for
    /// the same range is not.
    pub async fn add_unreachable(&self, range: IpNet) -> Result<(), NetError> {
        let request = self
            .handle
            .route()
            .add(message(range, RouteType::Unreachable));
        let added = ignoring(request.execute().await, &[libc::EEXIST])
            .map_err(|source| request_error(format!("add unreachable route {range}"), source))?;
        if !added && !self.has_unreachable(range).await? {
            return Err(NetError::RouteTaken(range));
        }
        Ok(())
    }

    /// Removes an `unreachable` route; returns whether it was there.
    pub async fn remove_unreachable(&self, range: IpNet) -> Result<bool, NetError> {
        let request = self
            .handle
            .route()
            .del(message(range, RouteType::Unreachable));
        ignoring(request.execute().await, &[libc::ESRCH])
            .map_err(|source| request_error(format!("remove unreachable route {range}"), source))
    }

    async fn loopback(&self) -> Result<u32, NetError> {
        let link = self
            .handle
            .link()
            .get()
            .match_name("lo".to_owned())
            .execute()
            .try_next()
            .await;
        match link {
            Ok(Some(link)) if link.header.flags.contains(LinkFlags::Up) => Ok(link.header.index),
            Ok(_) => Err(NetError::LoopbackDown),
            Err(source) => Err(request_error("look at lo".to_owned(), source)),
        }
    }

    async fn find_address(
        &self,
        address: IpAddr,
    ) -> Result<Option<rtnetlink::packet_route::address::AddressMessage>, NetError> {
        let index = self.loopback().await?;
        let mut found = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        while let Some(message) = found.next().await {
            let message =
                message.map_err(|source| request_error("list the addresses".to_owned(), source))?;
            let carries = message.attributes.iter().any(|attribute| {
                matches!(attribute, AddressAttribute::Address(found) if *found == address)
            });
            if carries {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

/// Whether this host has IPv6 on its loopback interface at all.
pub fn has_ipv6() -> bool {
    let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
    disabled.is_ok_and(|value| value.trim() == "0")
}

fn message(range: IpNet, kind: RouteType) -> RouteMessage {
    match range {
        IpNet::V4(range) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .kind(kind)
            .build(),
        IpNet::V6(range) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .kind(kind)
            .build(),
    }
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// `true` for success, `false` for an error number that is as good.
fn ignoring(
    result: Result<(), rtnetlink::Error>,
    as_good: &[i32],
) -> Result<bool, rtnetlink::Error> {
    match result {
        Ok(()) => Ok(true),
        Err(rtnetlink::Error::NetlinkError(message))
            if as_good.contains(&message.raw_code().saturating_neg()) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn request_error(what: String, source: rtnetlink::Error) -> NetError {
    NetError::Request { what, source }
}
