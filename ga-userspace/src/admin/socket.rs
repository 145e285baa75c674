//! The socket's file: made, or taken over from an agent that is gone.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::access::Owner;

/// Time a listener has to accept before it counts as alive but stuck.
const PROBE: Duration = Duration::from_secs(1);

/// The socket, and whose it is.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: UnixListener,
    pub(super) owner: Owner,
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("another agent listens on {}", .0.display())]
    Live(PathBuf),
    /// Something else is there, and it is not ours to remove.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens on `path` with mode 0660. A dead socket there is replaced, a live one is refused. The file keeps the group it is
/// created with; a set-group-id directory chooses another.
pub async fn bind(path: &Path) -> Result<Bound, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if is_dead(path).await => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(BindError::Live(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    listen(path).map_err(failed)
}

/// Listens on `path` in the place of an agent that still does: whoever connects reaches the one or the other.
pub fn rebind(path: &Path) -> Result<Bound, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) | Err(_) => {}
    }
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let bound = listen(&new).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    Ok(bound)
}

fn listen(path: &Path) -> io::Result<Bound> {
    let listener = UnixListener::bind(path)?;
    // Until here the umask decided; credentials are checked on every connection anyway.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(Bound { owner: Owner::of(path)?, listener })
}

/// Nobody listens: the kernel refuses the connection. Any other outcome, a full backlog or no permission say, may be a live one.
async fn is_dead(path: &Path) -> bool {
    match timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_refused() {
        let directory = tempfile::tempdir().expect("a writable /tmp");
        let path = directory.path().join("admin.sock");
        let first = bind(&path).await.expect("nothing is there");
        assert_eq!(fs::metadata(&path).expect("just made").permissions().mode() & 0o777, 0o660);
        assert!(matches!(bind(&path).await, Err(BindError::Live(_))));
        drop(first);
        bind(&path).await.expect("the first is gone, its file is not");
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a writable /tmp");
        let path = directory.path().join("admin.sock");
        fs::write(&path, "precious").expect("a writable directory");
        assert!(matches!(bind(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        // A file stands where a directory would have to be made.
        assert!(matches!(bind(&path.join("admin.sock")).await, Err(BindError::Io { .. })));
    }
}
