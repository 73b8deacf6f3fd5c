//! Measures Quittance: payments per second and their latency through the real server, a real
//! PostgreSQL and the sandbox provider, beside a `pgbench` baseline that writes the same rows with one
//! database transaction per state change.
//!
//! - [`load`] makes payments, in a closed loop and at a fixed rate.
//! - [`sample`] reads the rows that the service writes for one payment, and [`script`] makes a
//!   `pgbench` script of them; so the baseline follows the schema by itself.
//! - [`pgbench`] runs it, [`process`] and [`metrics`] observe, [`service`] starts what is measured,
//!   as [`setup`] configures it, and [`watched`] looks at it meanwhile.
//! - [`verify_log`] measures the verification of a log, and [`checkpoint_lag`] how long an entry waits for a checkpoint,
//!   instead of payments; both write what [`schedules`] gives.
//! - [`run`] does all of it in interleaved rounds, and [`report`] shows the result.
//!
//! `bench/README.md` says how to run it and how to read its numbers.

pub mod checkpoint_lag;
pub mod latency;
pub mod load;
pub mod metrics;
pub mod number;
pub mod options;
pub mod pgbench;
pub mod process;
pub mod report;
pub mod run;
pub mod sample;
pub mod sandbox;
pub mod schedules;
pub mod script;
pub mod service;
pub mod setup;
pub mod verify_log;
pub mod watched;
