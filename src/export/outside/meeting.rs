//! Where the exports of a job meet that wait for workers: whoever starts these hears once, when all are planned, and what he
//! says goes to the export that it is about.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;

use super::posted::{self, PostedJob};
use super::{EngineLine, EngineWord, Outside};
use crate::export::error::ExportError;
use crate::model::{Invitation, InvitedExport, JobInvitation, JobPartition, ReadyLine, WeighedPartition};
use crate::store::Destination;
use crate::store::journal::plan_sha256;

/// The exports of a run that wait for workers.
#[derive(Debug)]
pub(crate) struct Meeting {
    line: Option<Arc<EngineLine>>,
    names: Vec<String>,
    state: watch::Sender<MeetingState>,
}

#[derive(Debug)]
struct MeetingState {
    exports: Vec<MeetingExport>,
    /// Whoever starts the workers is gone.
    gone: bool,
}

/// Whether an export wants workers.
#[derive(Debug, Default)]
enum MeetingAnswer {
    /// It is being planned.
    #[default]
    Awaited,
    /// It is planned, and asks for some.
    Invited(Box<Invitation>),
    /// It has ended before, or has all that it needs.
    NeedsNobody,
}

/// What is known of one export.
#[derive(Debug, Default)]
struct MeetingExport {
    answer: MeetingAnswer,
    /// Whether it has ended since.
    ended: bool,
    /// How many receipts were told of.
    receipts: u64,
    /// The word that no worker can read it.
    failed: Option<EngineWord>,
}

/// What an invitation has in common for all exports of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeetingTerms<'a> {
    /// The job's root.
    pub(crate) root: &'a Destination,
    /// The same, without credentials.
    pub(crate) root_url: &'a str,
    pub(crate) run_id: &'a str,
}

impl Meeting {
    /// Of these exports, by the line of whichever has one.
    pub(crate) fn new(outside: &Outside, names: Vec<String>) -> Arc<Self> {
        let exports = names.iter().map(|_| MeetingExport::default()).collect();
        let state = watch::Sender::new(MeetingState { exports, gone: false });
        Arc::new(Self { line: outside.line.clone(), names, state })
    }

    /// Exports that were planned and have not ended.
    pub(super) fn waiting(&self) -> usize {
        let state = self.state.borrow();
        let invited = |export: &&MeetingExport| matches!(export.answer, MeetingAnswer::Invited(_)) && !export.ended;
        state.exports.iter().filter(invited).count()
    }

    /// What an export asks for, or that it needs nobody; the first answer counts.
    pub(super) fn answer(&self, place: usize, invitation: Option<Invitation>) {
        self.state.send_modify(|state| {
            let Some(export) = state.exports.get_mut(place) else { return };
            export.ended |= invitation.is_none();
            if matches!(export.answer, MeetingAnswer::Awaited) {
                let invited = invitation.map(|invitation| MeetingAnswer::Invited(Box::new(invitation)));
                export.answer = invited.unwrap_or(MeetingAnswer::NeedsNobody);
            }
        });
    }

    /// Says that an export is none that waits.
    pub(crate) fn needs_nobody(&self, place: usize) {
        self.answer(place, None);
    }

    /// Waits until all exports have answered, and invites workers for those that ask for some: at the job's root, and by the
    /// line. Then it goes on for ever.
    ///
    /// # Cancel safety
    /// What stands at the root is removed by whoever ends the run.
    pub(crate) async fn invite(&self, terms: MeetingTerms<'_>) -> Infallible {
        if let Err(error) = self.invited(terms).await {
            self.heed(EngineWord::Uninvited { kind: error.kind, message: error.sentence() });
        }
        std::future::pending().await
    }

    async fn invited(&self, MeetingTerms { root, root_url, run_id }: MeetingTerms<'_>) -> Result<(), ExportError> {
        let invitations = self.answers().await;
        let Some(max_workers) = invitations.iter().map(|(_, one)| one.max_workers).max() else { return Ok(()) };
        let exports = of_exports(&invitations, &self.names)?;
        let partitions = of_partitions(&invitations, |invitation| &invitation.partitions)?;
        let dealt = of_partitions(&invitations, |invitation| &invitation.all)?;
        let outhaul_version = env!("CARGO_PKG_VERSION").to_owned();
        let epoch = exports.iter().map(|export| export.epoch).max().unwrap_or_default();
        let posted = PostedJob {
            version: posted::VERSION,
            run_id: run_id.to_owned(),
            epoch,
            outhaul_version,
            exports,
            partitions,
            dealt,
            max_workers,
        };
        let bytes = posted.write(root).await?;
        let PostedJob { run_id, outhaul_version, exports, partitions, .. } = posted;
        tracing::info!(
            exports = exports.len(),
            partitions = partitions.len(),
            max_workers,
            "all exports wait for workers"
        );
        if let Some(line) = &self.line {
            let (destination, plan_sha256) = (root_url.to_owned(), plan_sha256(&bytes));
            let invitation = JobInvitation {
                run_id,
                destination,
                epoch,
                plan_sha256,
                outhaul_version,
                exports,
                partitions,
                max_workers,
            };
            // Nobody listens: what stands at the root says the same.
            let _ = line.told.send(ReadyLine::Job(invitation)).await;
        }
        Ok(())
    }

    /// What the exports ask for, once all have answered.
    async fn answers(&self) -> Vec<(usize, Invitation)> {
        let mut state = self.state.subscribe();
        let answered = |export: &MeetingExport| !matches!(export.answer, MeetingAnswer::Awaited);
        let all = state.wait_for(|state| state.exports.iter().all(answered)).await;
        let Ok(state) = all else { return Vec::new() };
        let waiting = state.exports.iter().enumerate().filter(|(_, export)| !export.ended);
        let invited = waiting.filter_map(|(place, export)| match &export.answer {
            MeetingAnswer::Invited(invitation) => Some((place, Invitation::clone(invitation))),
            MeetingAnswer::Awaited | MeetingAnswer::NeedsNobody => None,
        });
        invited.collect()
    }

    /// The next word that is about an export.
    ///
    /// # Cancel safety
    /// No word is lost.
    pub(super) async fn hear(&self, place: usize, seen: &mut u64) -> EngineWord {
        let told = async {
            let mut state = self.state.subscribe();
            let of = |state: &MeetingState| {
                let export = state.exports.get(place)?;
                if let Some(failed) = export.failed.clone() {
                    return Some((export.receipts, failed));
                }
                let word = match (state.gone, export.receipts > *seen) {
                    (true, _) => EngineWord::Gone,
                    (false, true) => EngineWord::Receipt { export: None },
                    (false, false) => return None,
                };
                Some((export.receipts, word))
            };
            match state.wait_for(|state| of(state).is_some()).await {
                Ok(state) => of(&state),
                Err(_) => None,
            }
        };
        let word = tokio::select! {
            biased;
            word = told => word,
            never = self.listen() => match never {},
        };
        match word {
            Some((receipts, word)) => {
                *seen = receipts;
                word
            }
            None => std::future::pending().await,
        }
    }

    /// Heeds what comes by the line, for all exports, while one of them waits for a word.
    async fn listen(&self) -> Infallible {
        if let Some(line) = &self.line {
            let mut heard = line.heard.lock().await;
            while let Some(word) = heard.recv().await {
                self.heed(word);
            }
        }
        std::future::pending().await
    }

    fn heed(&self, word: EngineWord) {
        self.state.send_modify(|state| match word {
            EngineWord::Receipt { export } => {
                of(state, export).for_each(|one| one.receipts = one.receipts.saturating_add(1));
            }
            EngineWord::Failed { export, kind, message } => {
                let failed = EngineWord::Failed { export: None, kind, message };
                of(state, export).for_each(|one| one.failed = Some(failed.clone()));
            }
            EngineWord::Uninvited { .. } => of(state, None).for_each(|one| one.failed = Some(word.clone())),
            EngineWord::Gone => state.gone = true,
        });
    }
}

/// The exports that a word is about.
fn of(state: &mut MeetingState, export: Option<u32>) -> impl Iterator<Item = &mut MeetingExport> {
    let meant = move |place: usize| export.is_none_or(|export| usize::try_from(export) == Ok(place));
    state.exports.iter_mut().enumerate().filter(move |(place, _)| meant(*place)).map(|(_, export)| export)
}

fn number_of(place: usize) -> Result<u32, ExportError> {
    u32::try_from(place).map_err(|error| ExportError::internal("a job has too many exports").with_source(error))
}

fn of_exports(invitations: &[(usize, Invitation)], names: &[String]) -> Result<Vec<InvitedExport>, ExportError> {
    let export = |(place, invitation): &(usize, Invitation)| {
        let Invitation { destination, epoch, plan_sha256, .. } = invitation.clone();
        let (number, name) = (number_of(*place)?, names.get(*place).cloned().unwrap_or_default());
        Ok(InvitedExport { number, name, destination, epoch, plan_sha256 })
    };
    invitations.iter().map(export).collect()
}

/// Partitions of all exports, the heaviest first.
fn of_partitions(
    invitations: &[(usize, Invitation)],
    of: impl Fn(&Invitation) -> &[WeighedPartition],
) -> Result<Vec<JobPartition>, ExportError> {
    let mut all = Vec::new();
    for (place, invitation) in invitations {
        let export = number_of(*place)?;
        let own = of(invitation).iter();
        all.extend(own.map(|one| JobPartition { export, number: one.number, weight: one.weight }));
    }
    all.sort_by_key(|one| (std::cmp::Reverse(one.weight), one.export, one.number));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::model::ExportErrorKind;
    use crate::store::StoreOptions;

    fn invitation(weights: &[u64]) -> Invitation {
        let weighed = |(number, weight): (usize, &u64)| WeighedPartition {
            number: u32::try_from(number).unwrap(),
            weight: *weight,
        };
        Invitation {
            run_id: "run".to_owned(),
            destination: "s3://lake/a".to_owned(),
            epoch: 2,
            plan_sha256: "ab".to_owned(),
            outhaul_version: "1".to_owned(),
            partitions: weights.iter().enumerate().map(weighed).collect(),
            all: weights.iter().chain(&[1]).enumerate().map(weighed).collect(),
            max_workers: 3,
        }
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("t{number}")).collect()
    }

    #[tokio::test]
    async fn workers_are_invited_once_all_exports_have_answered() {
        let (told, mut ready) = mpsc::channel(1);
        let (_words, heard) = mpsc::channel(1);
        let meeting = Meeting::new(&Outside::with_line(told, heard), names(3));
        let root = Destination::in_memory("meeting", &StoreOptions::small());
        let terms = MeetingTerms { root: &root, root_url: "s3://lake", run_id: "run" };
        let mut inviting = Box::pin(meeting.invite(terms));
        meeting.answer(2, Some(invitation(&[5, 40])));
        meeting.answer(1, None);
        assert!(futures_util::poll!(&mut inviting).is_pending());
        assert!(ready.try_recv().is_err());
        meeting.answer(0, Some(invitation(&[7])));
        // What comes later changes nothing.
        meeting.answer(1, Some(invitation(&[1])));
        let line = tokio::select! { line = ready.recv() => line, never = inviting => match never {} };
        let Some(ReadyLine::Job(job)) = line else { panic!("{line:?}") };
        let dealt: Vec<_> = job.partitions.iter().map(|one| (one.export, one.number, one.weight)).collect();
        assert_eq!(dealt, [(2, 1, 40), (0, 0, 7), (2, 0, 5)]);
        assert_eq!(job.exports.iter().map(|export| export.number).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((job.epoch, job.max_workers, meeting.waiting()), (2, 3, 2));
        let posted = posted::read(&root, "run").await.unwrap().unwrap();
        assert_eq!(plan_sha256(&posted.1), job.plan_sha256);
        // Shards are dealt of what has its receipt too.
        assert_eq!((posted.0.partitions.len(), posted.0.dealt.len()), (3, 5));
    }

    #[tokio::test]
    async fn a_word_goes_to_the_export_that_it_is_about() {
        let (told, _ready) = mpsc::channel(1);
        let (words, heard) = mpsc::channel(8);
        let meeting = Meeting::new(&Outside::with_line(told, heard), names(2));
        let (mut first, mut second) = (0, 0);
        words.send(EngineWord::Receipt { export: Some(1) }).await.unwrap();
        assert_eq!(meeting.hear(1, &mut second).await, EngineWord::Receipt { export: None });
        assert_eq!(meeting.hear(0, &mut first).now_or_never(), None);
        assert_eq!(meeting.hear(1, &mut second).now_or_never(), None);
        words.send(EngineWord::Receipt { export: None }).await.unwrap();
        assert_eq!(meeting.hear(0, &mut first).await, EngineWord::Receipt { export: None });
        assert_eq!(meeting.hear(1, &mut second).await, EngineWord::Receipt { export: None });
        let failed = |export| EngineWord::Failed { export, kind: ExportErrorKind::Data, message: "NaN".to_owned() };
        words.send(failed(Some(0))).await.unwrap();
        words.send(failed(Some(7))).await.unwrap();
        assert_eq!(meeting.hear(0, &mut first).await, failed(None));
        assert_eq!(meeting.hear(1, &mut second).now_or_never(), None);
        words.send(EngineWord::Gone).await.unwrap();
        assert_eq!(meeting.hear(1, &mut second).await, EngineWord::Gone);
    }
}
