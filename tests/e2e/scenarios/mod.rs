//! The scenarios, by subject.

mod audit;
mod books;
mod card_numbers;
mod catalogue;
mod database_lost;
mod declines;
mod errors;
mod fuzz;
mod idempotency;
mod input;
mod migration;
mod operations;
mod python;
mod races;
mod success;
mod telemetry;
mod tenants;
mod uncertainty;
mod watch;
mod workspace;
