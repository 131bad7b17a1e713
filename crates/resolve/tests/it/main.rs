//! Documents in, plan and mistakes out.

mod advice;
mod golden;
mod memory;
mod read;
mod reload;
mod requests;
