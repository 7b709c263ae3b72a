//! Which options of an export other commands take.

use super::{Heading, OPTIONS, OptionInfo, by_key};

/// The options by which a command connects that takes no other option of an export.
pub(crate) fn of_connection() -> impl Iterator<Item = &'static OptionInfo> {
    ["from", "password_file", "password_command", "config"].into_iter().filter_map(by_key)
}

/// The options of an export that `keep` takes.
pub(crate) fn of_keep() -> impl Iterator<Item = &'static OptionInfo> {
    of_connection().chain(by_key("yield_to_ddl"))
}

/// The options of an export that `resume` takes.
pub(crate) fn of_resume() -> impl Iterator<Item = &'static OptionInfo> {
    let people = OPTIONS.iter().filter(|option| option.heading == Heading::People);
    let own = [
        "aws_credential_command",
        "protect_key_file",
        "protect_key_command",
        "readers",
        "workers",
        "max_workers",
        "stdin",
    ];
    of_connection().chain(own.into_iter().filter_map(by_key)).chain(people)
}

/// The options of an export that `worker` takes.
pub(crate) fn of_worker() -> impl Iterator<Item = &'static OptionInfo> {
    let keys = ["aws_credential_command", "protect_key_file", "protect_key_command", "stdin", "log_format", "color"];
    of_connection().chain(keys.into_iter().filter_map(by_key))
}
