//! System calls that no crate offers: parts of `bpf(2)`, a socket option, and a probe from a
//! process in another cgroup.

#![expect(unsafe_code, reason = "raw system calls")]

use std::{
    ffi::CString,
    io,
    mem::{size_of, zeroed},
    net::SocketAddr,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_NETNS: u32 = 5;
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A program that is attached to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CgroupLink {
    /// The number of the program.
    pub(super) program: u32,
    /// The number of the cgroup; 0 if it is gone.
    pub(super) cgroup: u64,
}

/// The layout that `BPF_OBJ_GET_INFO_BY_FD` fills for a link, with room for newer kernels.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// Begins with the number of the cgroup (64 bits) or of the network namespace (32 bits).
    target: [u64; 6],
}

/// Opens what is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link, in one step.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes: [u32; 4] = [link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0];
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// What a link attaches to which cgroup; `None` if it is a link of another kind.
pub(super) fn cgroup_link(link: BorrowedFd<'_>) -> io::Result<Option<CgroupLink>> {
    let info = link_info(link)?;
    Ok((info.kind == BPF_LINK_TYPE_CGROUP).then_some(CgroupLink {
        program: info.program,
        cgroup: info.target[0],
    }))
}

/// The inode of what a link attaches its program to: a cgroup or a network namespace. `None` if that
/// is gone, or something else.
pub(super) fn link_target(link: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let info = link_info(link)?;
    let target = match info.kind {
        BPF_LINK_TYPE_CGROUP => info.target[0],
        BPF_LINK_TYPE_NETNS => {
            let [a, b, c, d, ..] = info.target[0].to_ne_bytes();
            u32::from_ne_bytes([a, b, c, d]).into()
        }
        _ => 0,
    };
    Ok((target != 0).then_some(target))
}

fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    #[repr(C)]
    struct Attributes {
        fd: u32,
        length: u32,
        info: u64,
    }
    // SAFETY: all fields are integers, for which zero is a value.
    let mut info: LinkInfo = unsafe { zeroed() };
    let mut attributes = Attributes {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// All programs that are attached to cgroups by links, on this host.
pub(super) fn cgroup_links() -> io::Result<Vec<CgroupLink>> {
    let mut links = Vec::new();
    let mut id = 0_u32;
    loop {
        // {start id, next id, flags}
        let mut next = [id, 0, 0];
        match bpf(BPF_LINK_GET_NEXT_ID, &mut next) {
            Ok(_) => id = next[1],
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(links),
            Err(error) => return Err(error),
        }
        let mut by_id = [id, 0, 0];
        let link = match bpf(BPF_LINK_GET_FD_BY_ID, &mut by_id) {
            // SAFETY: the kernel just made this descriptor for us.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            // It went away in between.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        links.extend(cgroup_link(std::os::fd::AsFd::as_fd(&link))?);
    }
}

/// The cookie of the network namespace of a socket (Linux 5.14).
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to live variables, and the length is that of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads a plain structure from bytes that need not be aligned; `None` if there are too few.
pub(super) fn read_plain<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, and every pattern is a value of a `Pod`.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// What a child process needs to connect from another cgroup.
pub(super) struct RemoteProbe<'a, T> {
    /// `cgroup.procs` of the cgroup, open for writing.
    pub(super) procs: BorrowedFd<'a>,
    /// The map with one entry that the child writes.
    pub(super) map: BorrowedFd<'a>,
    /// Where to connect to.
    pub(super) address: SocketAddr,
    /// Makes the entry from the cookie of the child's socket.
    pub(super) arm: fn(u64) -> T,
}

/// Lets a child process enter a cgroup and make one TCP connect from there, bound to the loopback
/// interface. The error names the step that failed in the child.
pub(super) fn probe_from<T: aya::Pod>(probe: &RemoteProbe<'_, T>) -> io::Result<()> {
    let address = socket2::SockAddr::from(probe.address);
    // SAFETY: the child only makes system calls (and calls `arm`, which builds a plain value)
    // before it exits; it takes no lock and allocates nothing.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let failed = in_child(probe, &address);
            // SAFETY: `_exit` does not return and runs nothing of the parent's.
            unsafe { libc::_exit(failed) }
        }
        _ => wait(child),
    }
}

/// The number of the step that failed, or 0.
fn in_child<T: aya::Pod>(probe: &RemoteProbe<'_, T>, address: &socket2::SockAddr) -> libc::c_int {
    // SAFETY: every pointer is to a live variable of this function or of the parent's frame,
    // which the child has a copy of; lengths are those of the variables.
    unsafe {
        if libc::write(probe.procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
            return 1;
        }
        let socket = libc::socket(
            libc::c_int::from(address.family()),
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            0,
        );
        if socket < 0 {
            return 2;
        }
        let device = c"lo";
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        if libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            3,
        ) != 0
            || libc::getsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            ) != 0
        {
            return 3;
        }
        let (key, value) = (0_u32, (probe.arm)(cookie));
        if update_element(probe.map, &key, &value).is_err() {
            return 4;
        }
        // How it ends is for the hook to say, not for the errno.
        libc::connect(socket, address.as_ptr().cast(), address.len());
        0
    }
}

fn wait(child: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live variable.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, 1) => Err(io::Error::other("no process may enter the cgroup")),
        (true, 2) => Err(io::Error::other("no socket could be made")),
        (true, 3) => Err(io::Error::other(
            "the socket has no cookie or cannot be bound to lo",
        )),
        (true, _) => Err(io::Error::other("the probe could not be armed")),
        (false, _) => Err(io::Error::other("the probing process was killed")),
    }
}

fn update_element<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut attributes = Attributes {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

fn bpf<A>(command: libc::c_int, attributes: &mut A) -> io::Result<libc::c_int> {
    // SAFETY: the callers pass the attributes that the command wants; the kernel checks the size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as libc::c_int)
    }
}
