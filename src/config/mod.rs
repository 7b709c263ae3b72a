//! Configuration: raw (as written, unknown keys refused) becomes typed (as used). `config/default.toml` is the only
//! home of defaults.
