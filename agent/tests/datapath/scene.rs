//! A place to test the datapath in: a network namespace, a cgroup, a gateway and client processes,
//! all of which go away with it.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clusterlink_agent::datapath::{
    Config, Datapath, DatapathError, KernelDatapath, cgroup_id, cgroup2_mount, cleanup,
};
use clusterlink_gateway::view::Origin;

pub(crate) const GATEWAY_V4: &str = "169.254.77.1:15001";
pub(crate) const GATEWAY_V6: &str = "[fd77:636c::1]:15001";
/// The leased port that [`OtherPeer`] serves.
pub(crate) const TARGET: &str = "169.254.77.1:30009";
const ROLE: &str = "CLTEST_ROLE";

/// Whether tests that need root can run, and are to: `CLUSTERLINK_REQUIRE_PRIVILEGES` is 1 where they
/// must, as in CI, and 0 where they are left out.
pub(crate) fn privileged() -> bool {
    let asked = env::var("CLUSTERLINK_REQUIRE_PRIVILEGES").ok();
    let root = nix::unistd::geteuid().is_root();
    let required = match asked.as_deref() {
        Some("0") => {
            not_run("CLUSTERLINK_REQUIRE_PRIVILEGES is 0");
            return false;
        }
        Some(asked) => asked == "1",
        None => env::var_os("CI").is_some(),
    };
    assert!(
        root || !required,
        "these tests need root, CAP_BPF and CAP_NET_ADMIN"
    );
    if !root {
        not_run("they need root, CAP_BPF and CAP_NET_ADMIN");
    }
    root
}

/// Says so once, past the runner's capture of what successful tests print.
fn not_run(why: &str) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Whoever closed standard error does not want to hear of it.
        let _ = writeln!(
            std::io::stderr(),
            "\nNOT RUN: the datapath's tests: {why}\n"
        );
    });
}

/// Waits until `probe` gives a value.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Everything of one test. The calling thread is in a network namespace of its own from then on,
/// and so are the processes that it starts.
pub(crate) struct Scene {
    pub(crate) bpf_dir: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) listeners: Vec<TcpListener>,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!(
            "cltest-ebpf-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        enter_new_network();
        let cgroup = cgroup2_mount().unwrap().join(&name);
        fs::create_dir(&cgroup).unwrap();
        let listeners = [GATEWAY_V4, GATEWAY_V6].map(|at| TcpListener::bind(at).unwrap());
        Self {
            bpf_dir: Path::new("/sys/fs/bpf/clusterlink").join(&name),
            cgroup,
            listeners: listeners.into(),
            _alone: alone,
        }
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            bpf_dir: self.bpf_dir.clone(),
            cgroup: self.cgroup.clone(),
            gateway_v4: Some(GATEWAY_V4.parse::<SocketAddrV4>().unwrap()),
            gateway_v6: Some(GATEWAY_V6.parse::<SocketAddrV6>().unwrap()),
            pass_when_stale: false,
            service_path: true,
            log_level: 0,
        }
    }

    /// Where maps and links are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        self.bpf_dir
            .join(format!("v{}", clusterlink_ebpf_common::LAYOUT))
    }

    /// Starts a datapath that is ready to steer.
    pub(crate) fn start(&self) -> KernelDatapath {
        let datapath = started(self.config());
        self.name_listeners(&datapath);
        datapath
            .probe()
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        datapath
    }

    pub(crate) fn name_listeners(&self, datapath: &KernelDatapath) {
        let listeners: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        datapath.set_listeners(&listeners).unwrap();
    }

    /// A client process in a cgroup of its own below ours.
    pub(crate) fn client(&self, name: &str) -> Client {
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).unwrap();
        Client::start(&cgroup)
    }

    /// Accepts a connection at the gateway, and says who it is from.
    pub(crate) fn accept(
        &self,
        v6: bool,
        datapath: &KernelDatapath,
    ) -> (TcpStream, Option<Origin>) {
        let listener = &self.listeners[usize::from(v6)];
        listener.set_nonblocking(true).unwrap();
        let stream = eventually("a connection", || listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        let origin = datapath.origin(stream.as_fd()).unwrap();
        (stream, origin)
    }

    /// Whether nobody connected to the gateway.
    pub(crate) fn nobody_came(&self) -> bool {
        self.listeners.iter().all(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept().is_err()
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        remove_cgroup(&self.cgroup);
        // While a panic is under way the datapath may still hold its lock; it is dropped before.
        if let Err(error) = cleanup(&self.bpf_dir) {
            eprintln!(
                "cannot clean up {}: {}",
                self.bpf_dir.display(),
                chain(&error)
            );
        }
    }
}

/// Kills what is left in a cgroup and below, and removes it.
fn remove_cgroup(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::remove_dir(path).is_err() && path.exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn started(config: Config) -> KernelDatapath {
    KernelDatapath::start(config).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

pub(crate) fn chain(error: &DatapathError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Moves the calling thread to a network namespace of its own, with the gateway's addresses.
pub(crate) fn enter_new_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
    ip("addr add 169.254.77.1/32 dev lo");
    ip("addr add fd77:636c::1/128 dev lo nodad");
}

/// Runs `ip` in the scene's network namespace.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A process that does what it is told, one line at a time.
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) cgroup: u64,
}

impl Client {
    pub(crate) fn start(cgroup: &Path) -> Self {
        let mut child = spawn("client", cgroup, &[]);
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut client = Self {
            child,
            input,
            output,
            cgroup: cgroup_id(cgroup).unwrap(),
        };
        assert_eq!(client.answer(), "ready");
        client
    }

    pub(crate) fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.answer()
    }

    /// Starts a command whose answer is read later.
    pub(crate) fn answer(&mut self) -> String {
        read_answer(&mut self.output)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_answer(output: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "the process ended"
        );
        // What the test runner itself prints has no mark.
        if let Some(at) = line.find("@@ ") {
            return line[at + 3..].trim().to_owned();
        }
    }
}

/// Another peer, in a process of its own that can be killed.
pub(crate) struct OtherPeer {
    pub(crate) child: Child,
    _input: ChildStdin,
}

impl OtherPeer {
    /// Starts one with this scene's listeners' addresses; returns when it is ready, or what it said.
    pub(crate) fn start(scene: &Scene, bpf_dir: &Path, cgroup: &Path) -> (Self, String) {
        let mut child = spawn(
            "peer",
            &cgroup2_mount().unwrap(),
            &[("CLTEST_BPF", bpf_dir), ("CLTEST_SUBTREE", cgroup)],
        );
        let _ = scene;
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let answer = read_answer(&mut output);
        let input = child.stdin.take().unwrap();
        (
            Self {
                child,
                _input: input,
            },
            answer,
        )
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for OtherPeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(role: &str, cgroup: &Path, variables: &[(&str, &Path)]) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "plays_its_role_in_another_process",
            "--nocapture",
        ])
        .env(ROLE, role)
        .env("CLTEST_CGROUP", cgroup)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The other side of [`Client`] and [`OtherPeer`].
pub(crate) fn play_role() {
    let Ok(role) = env::var(ROLE) else { return };
    let cgroup = PathBuf::from(env::var_os("CLTEST_CGROUP").unwrap());
    fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    match role.as_str() {
        "client" => play_client(),
        _ => play_peer(),
    }
}

fn play_peer() {
    let path = |name| PathBuf::from(env::var_os(name).unwrap());
    let listener = TcpListener::bind(GATEWAY_V4).unwrap();
    let config = Config {
        bpf_dir: path("CLTEST_BPF"),
        cgroup: path("CLTEST_SUBTREE"),
        gateway_v4: Some(GATEWAY_V4.parse::<SocketAddrV4>().unwrap()),
        gateway_v6: None,
        pass_when_stale: false,
        service_path: true,
        log_level: 0,
    };
    let datapath = match KernelDatapath::start(config) {
        Ok(datapath) => datapath,
        Err(error) => {
            println!("@@ {}", chain(&error));
            return;
        }
    };
    datapath.set_listeners(&[listener.as_fd()]).unwrap();
    let target_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    datapath
        .set_target_listeners(&[target_listener.as_fd()])
        .unwrap();
    datapath.set_target(TARGET.parse().unwrap(), 9).unwrap();
    datapath
        .set_service("10.114.0.9:80".parse().unwrap(), 9)
        .unwrap();
    datapath.set_verdicts(1, 0, &[u64::MAX; 8]).unwrap();
    datapath.probe().unwrap();
    println!("@@ ready");
    // Until the pipe closes; the caller may also kill us.
    thread::spawn(move || {
        loop {
            datapath.heartbeat().unwrap();
            thread::sleep(Duration::from_millis(200));
        }
    });
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
}

fn play_client() {
    let mut stream: Option<TcpStream> = None;
    println!("@@ ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let address = || words[1].parse::<SocketAddr>().unwrap();
        let errno = |error: std::io::Error| format!("errno {}", error.raw_os_error().unwrap_or(0));
        let answer = match words[0] {
            "connect" => match TcpStream::connect_timeout(&address(), Duration::from_secs(3)) {
                Ok(connected) => match connected.peer_addr() {
                    Ok(peer) => {
                        stream = Some(connected);
                        format!("peer {peer}")
                    }
                    // It was reset by now.
                    Err(error) => errno(error),
                },
                Err(error) => errno(error),
            },
            "echo" => {
                let stream = stream.as_mut().unwrap();
                stream.write_all(words[1].as_bytes()).unwrap();
                let mut text = vec![0; words[1].len()];
                stream.read_exact(&mut text).unwrap();
                String::from_utf8(text).unwrap()
            }
            "close" => {
                stream = None;
                "closed".to_owned()
            }
            "send" => {
                let any = if address().is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any).unwrap();
                socket
                    .send_to(b"x", address())
                    .map_or_else(errno, |_| "sent".to_owned())
            }
            "udp-connect" => {
                let any = if address().is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any).unwrap();
                socket
                    .connect(address())
                    .map_or_else(errno, |()| "connected".to_owned())
            }
            // One socket with a port of its own connects to one address after the other.
            "connect-in-turn" => {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                        .unwrap();
                socket.set_reuse_address(true).unwrap();
                let port: u16 = words[1].parse().unwrap();
                let own = SocketAddr::from((Ipv4Addr::new(169, 254, 77, 1), port));
                socket.bind(&own.into()).unwrap();
                let results: Vec<_> = words[2..]
                    .iter()
                    .map(|to| {
                        let to: SocketAddr = to.parse().unwrap();
                        match socket.connect(&to.into()) {
                            Ok(()) => {
                                format!("peer {}", socket.peer_addr().unwrap().as_socket().unwrap())
                            }
                            Err(error) => errno(error),
                        }
                    })
                    .collect();
                stream = Some(socket.into());
                results.join(", ")
            }
            "leave-network" => {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                "left".to_owned()
            }
            "fast-open" => {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                        .unwrap();
                let sent =
                    socket.send_to_with_flags(b"early", &address().into(), libc::MSG_FASTOPEN);
                let peer = socket.peer_addr().map(|peer| peer.as_socket());
                stream = Some(socket.into());
                format!("{sent:?} {peer:?}")
            }
            "storm" => storm(address(), words[2].parse().unwrap()),
            other => panic!("unknown command {other}"),
        };
        println!("@@ {answer}");
    }
}

/// Connects and resets, over and over.
fn storm(to: SocketAddr, count: u32) -> String {
    let mut failed = 0;
    for _ in 0..count {
        match TcpStream::connect(to) {
            Ok(stream) => {
                let socket = socket2::Socket::from(stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            Err(_) => failed += 1,
        }
    }
    format!("failed {failed}")
}

/// A listener that answers nobody, at an address of its own.
pub(crate) fn plain_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What bpftool says about a pinned map.
pub(crate) fn bpftool_dump(path: &Path) -> String {
    File::open(path.parent().unwrap()).unwrap();
    bpftool(&["map", "dump", "pinned", &path.to_string_lossy()])
}

/// What bpftool says.
pub(crate) fn bpftool(arguments: &[&str]) -> String {
    let output = Command::new("bpftool").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
