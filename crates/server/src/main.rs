//! The `quittance` binary: see [`quittance_server::cli`].

use std::process::ExitCode;

/// The C library's malloc and free took half of the server's CPU time under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quittance_server::cli::main()
}
