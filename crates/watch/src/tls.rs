//! TLS for checks, by rustls: 1.2 and 1.3, a whole handshake every time.
//!
//! With `ca` the certificate must come from those authorities and name the server. Without, it may be anybody's: a
//! check asks whether the server answers. The handshake's signatures are checked in both cases, so a server must have
//! the key of the certificate that it shows. Deliberately absent: client certificates, revocation.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use portway_core::ruleset;
use portway_core::ruleset::HostName;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fault::Fault;
use crate::lock::locked;
use crate::socket::late;

/// The largest file of authorities, in bytes: those of Mozilla together have a quarter of that.
const CA_FILE: u64 = 1 << 20;

/// The most files that are read at the same time.
pub(crate) const READING: usize = 2;

/// The file of authorities, and whether HTTP is spoken.
type Key = (Option<PathBuf>, bool);

/// Settings that were made before.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    made: Mutex<BTreeMap<Key, Arc<OnceCell<Arc<ClientConfig>>>>>,
    /// Files may be on a disk that does not answer: threads that read them are few.
    reading: Arc<Semaphore>,
}

/// One handshake to be made.
pub(crate) struct Client<'a> {
    tls: &'a Tls,
    ca: Option<&'a Path>,
    http: bool,
    name: ServerName<'static>,
}

/// A connection behind its handshake.
pub(crate) type Stream = TlsStream<TcpStream>;

impl Tls {
    pub(crate) fn new() -> Self {
        Self {
            provider: Arc::new(ring::default_provider()),
            made: Mutex::default(),
            reading: Arc::new(Semaphore::new(READING)),
        }
    }

    /// Reads the files anew from now on.
    pub(crate) fn forget(&self) {
        locked(&self.made).clear();
    }

    /// The handshake of a check. The name asked for is the check's, else the backend's; an address has none to ask
    /// for (RFC 6066 3), but is what a certificate must name.
    pub(crate) fn client<'a>(
        &'a self,
        tls: &'a ruleset::Tls,
        host: Option<&HostName>,
        address: SocketAddr,
        http: bool,
    ) -> Client<'a> {
        let name = tls.server_name.as_ref().or(host);
        let name = name.and_then(|name| ServerName::try_from(name.as_str().to_owned()).ok());
        let name = name.unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
        Client { tls: self, ca: tls.ca.as_deref(), http, name }
    }

    fn config(&self, roots: Option<RootCertStore>, http: bool) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?;
        let mut config = match roots {
            Some(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
            None => {
                let anybody = Arc::new(Anybody(self.provider.signature_verification_algorithms));
                builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
            }
        };
        config.resumption = Resumption::disabled();
        if http {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(config)
    }
}

impl Client<'_> {
    /// Makes the handshake.
    pub(crate) async fn handshake(self, stream: TcpStream, deadline: Instant) -> Result<Stream, Fault> {
        let Ok(config) = timeout_at(deadline, self.config()).await else { return Err(late("ca")) };
        let connector = TlsConnector::from(config?);
        match timeout_at(deadline, connector.connect(self.name, stream)).await {
            Ok(shaken) => shaken.map_err(|error| Fault::of("TLS handshake", &error)),
            Err(_) => Err(late("TLS handshake")),
        }
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, Fault> {
        let key: Key = (self.ca.map(Path::to_path_buf), self.http);
        // A thousand checks that begin together read their file once.
        let made = Arc::clone(locked(&self.tls.made).entry(key).or_default());
        made.get_or_try_init(|| self.make()).await.cloned()
    }

    async fn make(&self) -> Result<Arc<ClientConfig>, Fault> {
        let roots = match self.ca {
            None => None,
            Some(path) => {
                let failed = |why: String| Fault::Failed(format!("ca {}: {why}", path.display()));
                let place = Arc::clone(&self.tls.reading).acquire_owned().await;
                let path = path.to_path_buf();
                let read = spawn_blocking(move || {
                    let _place = place;
                    authorities(&path)
                });
                Some(read.await.map_err(|_| failed("not read".to_owned()))?.map_err(failed)?)
            }
        };
        let config = self.tls.config(roots, self.http);
        config.map(Arc::new).map_err(|error| Fault::Failed(format!("TLS: {error}")))
    }
}

/// The version that was agreed on, for people.
pub(crate) trait Version {
    /// "TLS 1.3".
    fn version(&self) -> &'static str;
}

impl Version for Stream {
    fn version(&self) -> &'static str {
        match self.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        }
    }
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(CA_FILE + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > CA_FILE {
        return Err(format!("more than {CA_FILE} bytes"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(roots) }
}

/// Takes anybody's certificate, but not without the key that belongs to it.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
