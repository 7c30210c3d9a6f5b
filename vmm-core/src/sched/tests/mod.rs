//! The scheduler in a simulation of pCPUs and vCPUs, against what is ideal.

mod fluid;
mod shares;
mod sim;
mod wakes;
mod yields;
