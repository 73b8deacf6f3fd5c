//! The gRPC contract: messages, clients and servers generated from `proto/quittance/v1`, and the descriptor set.
//!
//! Nothing here is written by hand except `Debug` of the messages that hold what no log may show.

mod redacted;

/// Package `quittance.v1`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::indexing_slicing,
    rustdoc::all,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("quittance.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the contract and its imports, with comments, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/quittance_v1.bin"));

#[cfg(test)]
mod tests;
