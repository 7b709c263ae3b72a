//! `outhaul ddl`.

use clap::ArgMatches;

use super::CommandContext;
use super::screen::stdout_answer;
use crate::commit::look;
use crate::describe::ddl::dbt::{self, DBT};
use crate::describe::ddl::{Dialect, TableName, ddl};
use crate::export::ExportError;
use crate::export::place::place;
use crate::model::ExportErrorKind;

pub(super) async fn print(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let made = context.unless_stopped("stopped while reading the manifest", make(matches)).await;
    match made {
        Ok(sql) => stdout_answer(sql.trim_end()),
        Err(error) => context.fail(&error),
    }
}

async fn make(matches: &ArgMatches) -> Result<String, ExportError> {
    let url = matches.get_one::<String>("dest").map_or("", String::as_str);
    let word = matches.get_one::<String>("dialect").map_or("", String::as_str);
    let (destination, placement) = place(url, false).await?;
    let existing = look(&destination, &placement).await?.ok_or_else(|| {
        let manifest = destination.object_url(&placement.manifest_path());
        ExportError::new(ExportErrorKind::Verification, format!("there is no manifest at {manifest}"))
    })?;
    let name = matches.get_one::<TableName>("name");
    if word == DBT {
        return Ok(dbt::sources(&existing.manifest, &placement, name));
    }
    let dialect = Dialect::ALL.into_iter().find(|dialect| dialect.name() == word);
    let dialect = dialect.ok_or_else(|| ExportError::internal(format!("the dialect {word} is nobody's")))?;
    ddl(&existing.manifest, &placement, dialect, name)
        .map_err(|refused| ExportError::new(ExportErrorKind::Usage, refused.to_string()))
}
