//! Where the password comes from.

use std::path::{Path, PathBuf};

use super::{Resolver, SOCKET_FOLDERS, files};
use crate::base::postgres::settings::{Password, Secret, ServerAddress};
use crate::config::raw::{Origin, Raw};

const HINT: &str = "every user of this machine can read it there; use --from env:NAME, PGPASSWORD, ~/.pgpass, --password-file or --password-command";

/// The same for ClickHouse, which has no file of passwords.
const CLICKHOUSE_HINT: &str = "every user of this machine can read it there; use --from env:NAME, CLICKHOUSE_PASSWORD, --password-file \
    or --password-command";

/// The options that give a password.
const OPTIONS: [&str; 2] = ["password_file", "password_command"];

impl Resolver<'_> {
    /// A connection string may hold a password where others cannot read it.
    pub(super) fn check_password_in_string(&mut self, raw: &Raw, on_command_line: bool, clickhouse: bool) {
        let Some(place) = self.parameters.get("password").map(|password| password.place.clone()) else { return };
        if on_command_line {
            return self.fault(
                "--from",
                "a password on the command line",
                if clickhouse { CLICKHOUSE_HINT } else { HINT },
            );
        }
        if let Some(Origin::File(file, ..)) = raw.get("from").map(|setting| &setting.origin) {
            self.note_if_open(file);
        }
        if let Some(option) = OPTIONS.iter().find_map(|option| raw.get(option)) {
            self.fault(place, format!("{} gives a password too", option.origin), "keep one of them");
        }
    }

    /// Notes a file with a password in it, where others can read it.
    pub(super) fn note_if_open(&mut self, file: &Path) {
        if self.environment.is_open_to_others(file) {
            self.exposed.push(file.to_owned());
        }
    }

    pub(super) fn password(
        &mut self,
        raw: &Raw,
        addresses: &[ServerAddress],
        user: &str,
        database: &str,
    ) -> Option<Password> {
        match OPTIONS.map(|option| raw.get(option)) {
            [Some(file), Some(command)] => {
                self.fault(&command.origin, format!("{} gives a password too", file.origin), "keep one of them");
                None
            }
            [Some(setting), None] => {
                let file = setting.values.first().map_or("", String::as_str);
                self.password_file(&setting.origin, Path::new(file))
            }
            [None, Some(setting)] => {
                let command = setting.values.first().filter(|command| !command.trim().is_empty());
                if command.is_none() {
                    self.fault(&setting.origin, "the command is empty", "write one that prints the password");
                }
                command.map(|command| Password::Command(Secret::new(command.clone())))
            }
            [None, None] => match self.text("password") {
                Some(password) => Some(Password::Known(Secret::new(password.to_owned()))),
                None => self.of_libpq_file(addresses, user, database),
            },
        }
    }

    /// A file is looked at once now, so that a wrong name is told before anything is done.
    fn password_file(&mut self, origin: &Origin, file: &Path) -> Option<Password> {
        match self.environment.read(file) {
            Ok(text) if text.lines().next().is_some_and(|line| !line.is_empty()) => {
                self.note_if_open(file);
                Some(Password::File(file.to_owned()))
            }
            Ok(_) => {
                let what = format!("the first line of {} is empty", file.display());
                self.fault(origin, what, "write the password there");
                None
            }
            Err(error) => {
                let what = format!("reading {}: {error}", file.display());
                self.fault(origin, what, "check the name");
                None
            }
        }
    }

    fn of_libpq_file(&mut self, addresses: &[ServerAddress], user: &str, database: &str) -> Option<Password> {
        let file = self.text("passfile").map(PathBuf::from).or_else(|| self.in_home(".pgpass"))?;
        let text = self.environment.read(&file).ok()?;
        let mut passwords: Vec<Option<String>> = Vec::new();
        for address in addresses {
            let (host, port) = match address {
                ServerAddress::Tcp { host, port } => (host.as_str(), *port),
                ServerAddress::Unix { folder, port } => (folder.to_str().unwrap_or_default(), *port),
            };
            let host = if SOCKET_FOLDERS.contains(&host) { "localhost" } else { host };
            passwords.push(files::password(&text, host, port, database, user));
        }
        passwords.dedup();
        let shown = file.display();
        if passwords.len() > 1 {
            self.fault(&shown, "the hosts have different passwords", "give them the same, or name one host");
            return None;
        }
        let password = passwords.pop().flatten()?;
        // libpq warns and goes on without a password, only to be turned away.
        if self.environment.is_open_to_others(&file) {
            self.fault(&shown, "group or others can read this password file", format!("run chmod 600 {shown}"));
            return None;
        }
        Some(Password::Known(Secret::new(password)))
    }
}
