//! The TLS settings of both ends.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, ServerConfig,
    client::{ClientSessionMemoryCache, Resumption},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, Ticketer, cipher_suite, kx_group},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
    version::TLS13,
};

use super::{ALPN, trust::Trust, verifier::PeerVerifier};

/// How many peers' tickets are kept for resumption; the oldest give way.
const RESUMABLE_PEERS: usize = 1024;

/// Both configurations of one generation. Tickets and kept sessions die with them.
pub(super) struct Configs {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

/// Builds the configurations for a leaf and a bundle.
pub(super) fn configs(
    leaf: CertifiedKey,
    trust: &Arc<Trust>,
    clock: &Arc<dyn TimeProvider>,
) -> Result<Configs, rustls::Error> {
    let provider = provider();
    let leaf = Arc::new(SingleCertAndKey::from(leaf));
    let verifier = Arc::new(PeerVerifier {
        trust: trust.clone(),
        algorithms: provider.signature_verification_algorithms,
    });

    let mut client = ClientConfig::builder_with_details(provider.clone(), clock.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(leaf.clone());
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(RESUMABLE_PEERS)));
    client.enable_early_data = false;

    let mut server = ServerConfig::builder_with_details(provider.clone(), clock.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(leaf);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.ticketer = Ticketer::new()?;
    server.max_early_data_size = 0;

    Ok(Configs {
        client: Arc::new(client),
        server: Arc::new(server),
    })
}

/// The cryptography that both ends use, built once.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut cipher_suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        if !has_aes() {
            cipher_suites.rotate_right(1);
        }
        Arc::new(CryptoProvider {
            cipher_suites,
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
            ],
            ..aws_lc_rs::default_provider()
        })
    })
}

/// Whether AES-GCM runs in hardware here; without it ChaCha20 is several times faster.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}
