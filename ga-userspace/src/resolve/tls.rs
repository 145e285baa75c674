//! The client's side of TLS, for the address of an inventory.

use std::{path::Path, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::trust;

/// A connection to `host`, which must have a certificate that `ca` or the system vouches for. Both are read anew each time: whoever
/// renews them need not tell us.
pub(super) async fn secured(stream: TcpStream, host: &str, ca: Option<&Path>) -> Result<TlsStream<TcpStream>, String> {
    let ca = ca.map(Path::to_path_buf);
    let config = tokio::task::spawn_blocking(move || trust::client(true, ca.as_deref(), &[])).await;
    let config = config.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}
