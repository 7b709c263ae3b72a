//! What a run tells of itself as it begins.

use super::job::relation;
use super::run::Run;
use crate::model::{Event, FormatOptions};

impl Run {
    pub(crate) async fn announce(&self) {
        let FormatOptions { format, compression, .. } = self.request.format;
        self.tell(Event::RunStarted {
            run_id: self.request.commit.run_id.clone(),
            relation: relation(&self.request),
            destination: self.place.url(),
            format: format!("{format:?}").to_lowercase(),
            compression: compression.name().to_owned(),
            single_file: self.request.commit.single_file,
            readers: self.request.work.readers.get(),
        })
        .await;
    }
}
