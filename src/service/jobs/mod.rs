//! Exports in the background: a request becomes a row of the queue, and a worker makes the row's export.

mod attempt;
mod events;
mod figures;
mod order;
mod probe;
mod retry;
mod routes;
mod submit;
mod sweep;
mod view;
mod worker;

pub(crate) use events::{__path_events, events};
pub(crate) use figures::measure;
pub(crate) use probe::probe;
pub(crate) use routes::{__path_cancel, __path_list, cancel, entry, found, list, note, state, visible};
pub(crate) use submit::{__path_submit, JobQuestion, queue_or_stream, submit};
pub(crate) use sweep::sweep;
pub(crate) use view::{JobView, answer};
pub(crate) use worker::start;
