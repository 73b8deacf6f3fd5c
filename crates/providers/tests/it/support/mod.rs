//! What the tests of every adapter share.

pub mod builders;
pub mod kit;
pub mod localstripe;
pub mod python;
pub mod server;
pub mod signatures;
