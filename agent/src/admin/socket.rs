//! The socket of the local API.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{fs::Mode, net};

/// A listening socket in the file system; the file goes when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    inode: u64,
}

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens on it.
    #[error(
        "{path} belongs to running process {process}; stop it, or give this peer a socket of its own with --admin"
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The other process.
        process: String,
    },
    /// There is something else of that name.
    #[error("{0} is there and is no socket; remove it, or choose another --admin")]
    NotASocket(PathBuf),
    /// It cannot be made.
    #[error("cannot make the admin socket {path}; choose another with --admin")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl AdminSocket {
    /// Listens at `path`, replacing the socket of a process that is gone.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |source: io::Error| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        remove_stale(path)?;
        let listener = listen(path).map_err(failed)?;
        let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok((
            Self {
                path: path.to_owned(),
                inode,
            },
            listener,
        ))
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // A successor may have put its own there.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a process that is gone; returns whether there was one.
pub fn remove_stale(path: &Path) -> Result<bool, SocketError> {
    let failed = |source: io::Error| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let process = net::sockopt::socket_peercred(&stream).map_or_else(
                |_| "(unknown)".to_owned(),
                |peer| peer.pid.as_raw_nonzero().to_string(),
            );
            Err(SocketError::InUse {
                path: path.to_owned(),
                process,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The mode of a socket file is that of the socket at the moment of bind, so that it is never
/// open to others, not even for an instant.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = net::socket_with(
        net::AddressFamily::UNIX,
        net::SocketType::STREAM,
        net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &net::SocketAddrUnix::new(path)?)?;
    net::listen(&socket, 64)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let (socket, _listener) = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_left_alone_and_its_process_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _first = AdminSocket::bind(&path).unwrap();
        let error = AdminSocket::bind(&path).unwrap_err();
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "what a killed process leaves");
        drop(AdminSocket::bind(&path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(matches!(
            AdminSocket::bind(&path),
            Err(SocketError::NotASocket(_))
        ));
        assert!(path.exists());
    }
}
