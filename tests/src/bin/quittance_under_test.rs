//! The product's own `main`, built as a binary of this package: the tests start it as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    quittance_server::cli::main()
}
