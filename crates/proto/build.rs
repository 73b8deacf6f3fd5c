//! Generates the contract's Rust code and its descriptor set, in Rust alone: no `protoc` is needed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The contract's folder, from this crate.
const PROTO_ROOT: &str = "../../proto";
/// The folder of the one package, below it.
const PACKAGE_DIR: &str = "quittance/v1";

/// Messages that can hold a provider's token, a secret, personal data or a caller's free text, which nobody has checked for a card
/// number yet. Their `Debug` is written in `src/redacted.rs`, so that a stray `{:?}` shows none of it.
const REDACTED: [&str; 20] = [
    "PaymentMethod",
    "Customer",
    "PostalAddress",
    "NextAction",
    "CreatePaymentRequest",
    "ConfirmPaymentRequest",
    "CapturePaymentRequest",
    "VoidPaymentRequest",
    "RefundPaymentRequest",
    "GetPaymentRequest",
    "ListPaymentsRequest",
    "ResolveTransactionRequest",
    "RetryTransactionRequest",
    "ErasePersonalDataRequest",
    "NotificationEndpoint",
    "CreateNotificationEndpointRequest",
    "CreateNotificationEndpointResponse",
    "UpdateNotificationEndpointRequest",
    "RotateNotificationEndpointSecretResponse",
    "ReplayWebhookRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(PROTO_ROOT);
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-changed=build.rs");

    let mut compiler = protox::Compiler::new([root])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(sources(root)?)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(
        out.join("quittance_v1.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Ordered maps: the same message is always the same bytes.
        .btree_map(".")
        .skip_debug(REDACTED.map(|message| format!(".quittance.v1.{message}")))
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The contract's files, sorted, so that the build does not depend on the order of a directory.
fn sources(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(root.join(PACKAGE_DIR))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "proto")
    });
    files.sort();
    Ok(files)
}
