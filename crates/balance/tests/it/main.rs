//! The public face of the crate: sets in a simulated world, and how keys and requests spread.

mod health;
mod keys;
mod lifetime;
mod load;
mod simulation;
mod killed;
mod world;
