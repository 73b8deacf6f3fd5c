//! The Quittance server: configuration, TLS, credentials, gRPC, HTTP, and how they are wired.
//!
//! `main.rs` only calls [`cli::main`]. Everything else is here, so that tests and the load generator
//! start the very same server in-process.

pub mod adapters;
pub mod auth;
pub mod cli;
mod commands;
pub mod config;
pub mod convert;
pub mod database;
mod demo;
pub mod dev;
pub mod grpc;
pub mod http;
pub mod layers;
pub mod net;
pub mod notifications;
mod operator;
mod output;
pub mod server;
mod signals;
pub mod signing;
pub mod trail;
mod warnings;
mod witness;
mod workers;

pub use server::{RunningServer, Server, StartError};
