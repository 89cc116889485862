//! Listening: over TLS 1.2 or later, or in plain text on a loopback address.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum_server::{Handle, tls_rustls::RustlsConfig};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use crate::{
    app::{App, StartError},
    config::TlsConfig,
    endpoints::router,
};

/// Requests under way may end within this after a stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until `stop` is done. `bound` hears the address.
///
/// # Errors
/// The address cannot be bound, or certificate and key cannot be used.
pub async fn serve(
    app: Arc<App>,
    bound: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let address = app.config.listen;
    let failed = |source| StartError::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    bound(listener.local_addr().map_err(failed)?);
    let handle = Handle::new();
    let stopping = handle.clone();
    tokio::spawn(async move {
        stop.await;
        stopping.graceful_shutdown(Some(GRACE));
    });
    let service = router(&app).into_make_service_with_connect_info::<SocketAddr>();
    let served = match &app.config.tls {
        Some(tls) => {
            let config = RustlsConfig::from_config(Arc::new(tls_config(tls)?));
            axum_server::from_tcp_rustls(listener, config)
                .map_err(failed)?
                .handle(handle)
                .serve(service)
                .await
        }
        None => axum_server::from_tcp(listener).map_err(failed)?.handle(handle).serve(service).await,
    };
    served.map_err(failed)
}

fn tls_config(tls: &TlsConfig) -> Result<ServerConfig, StartError> {
    let wrong = |what| StartError::Tls { what };
    let certificates = CertificateDer::pem_file_iter(&tls.cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|_| wrong("cert_file holds no certificate in PEM"))?;
    let key =
        PrivateKeyDer::from_pem_file(&tls.key_file).map_err(|_| wrong("key_file holds no key in PEM"))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12, &TLS13])
        .map_err(|_| wrong("no protocol version can be used"))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|_| wrong("certificate and key do not fit together"))
}
