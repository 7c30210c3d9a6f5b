//! Set-up, build, image, run, test and bench: the project's own commands.
fn main() {}
