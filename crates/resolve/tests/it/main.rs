//! Documents in, plan and mistakes out.

mod golden;
mod read;
mod reload;
mod requests;
