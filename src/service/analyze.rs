//! `POST /v1/analyze/{dataset}/{analysis}`: buckets, each with the key of its rows; and `…/rows/export`: these rows as a
//! stream. Drilling into a bucket is a right of its own: it does not include the right to query.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::mem;
use std::num::NonZeroU64;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::Utc;
use futures_util::{FutureExt, stream};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::ServiceState;
use super::access::Caller;
use super::bucket_key::{BucketClaim, fingerprint, invalid};
use super::catalog::column_of;
use super::jobs::{JobQuestion, JobView, queue_or_stream};
use super::paced::{ClientPace, paced};
use super::prefer::responds_async;
use super::problem::{ProblemBody, Refusal, without_values};
use super::query::{body_of, stream_of, streamable};
use super::question::{DateRange, Filter, OrderBy, Question, StreamFormat, parsed};
use super::scoped::about;
use crate::base::memory::{REQUEST_BODY_BYTES_MAX, SIGNED_BODY_BYTES_MAX};
use crate::config::service::{Analysis, Dataset, MeasureKind};
use crate::export::ExportError;
use crate::model::{
    AggregateBucket, AggregateRequest, DescribedRelation, Dimension, ExportErrorKind, Measure, RowScope, ScopeColumn,
    ScopeCondition, ScopeTest,
};

/// What a bucket of an answer takes of memory, beside its values and the filters in its key: the rest of the key.
const BUCKET_BYTES: u64 = 768;

/// What the values of all buckets may be together, and how much more for each of them.
const VALUES_BYTES: u64 = 1024 * 1024;
const VALUE_BYTES: u64 = 64;

/// So often they are in memory at most: as they come, and in the key and the view of a bucket and in the text of the answer,
/// where characters are escaped.
const VALUE_COPIES: u64 = 6;

/// Bytes of a bucket's key: columns and an order stand beside it in the body that it comes back in.
const KEY_BYTES_MAX: usize = SIGNED_BODY_BYTES_MAX - 4 * 1024;

/// So often the filters are in memory for each bucket: a third more than they are in the key, which stands in the bucket and
/// in the text of the answer.
const FILTER_COPIES: u64 = 3;

/// Bytes of an answer that are handed to the connection at once.
const ANSWER_PIECE_BYTES: usize = 64 * 1024;

/// The body of an analysis.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AnalysisQuestion {
    r#where: Vec<Filter>,
    date_range: Option<DateRange>,
}

/// The body of a bucket's rows. The filters are in the key.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RowsQuestion {
    bucket_key: Option<String>,
    format: StreamFormat,
    #[schema(required = true)]
    columns: Vec<String>,
    order_by: Vec<OrderBy>,
    allow_empty: bool,
    end_record: bool,
}

/// The answer to an analysis.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnalysisView {
    buckets: Vec<BucketView>,
    /// Whether there are more buckets than these.
    truncated: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BucketView {
    // As they are declared, each value as the source writes it: a large number keeps all its digits.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    #[serde(serialize_with = "in_order")]
    dimensions: Vec<(String, Box<RawValue>)>,
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    measures: BTreeMap<String, Box<RawValue>>,
    bucket_key: String,
}

/// Answers with the buckets.
#[utoipa::path(
    post,
    path = "/v1/analyze/{dataset}/{analysis}",
    operation_id = "analyze",
    params(("dataset" = String, Path, description = "The name of the dataset"), ("analysis" = String, Path, description = "The name of the analysis")),
    request_body = Option<AnalysisQuestion>,
    responses(
        (status = 200, description = "The buckets", body = AnalysisView),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn analyze(
    State(service): State<Arc<ServiceState>>,
    Path((dataset, analysis)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let (caller, dataset, name, analysis) =
        service.admit_analysis(service.caller(&parts.headers)?, &dataset, &analysis)?;
    // What is asked here stands in each bucket's key, which is to fit into a body too.
    let body = body_of(body, REQUEST_BODY_BYTES_MAX).await?;
    let asked: Option<AnalysisQuestion> = if body.is_empty() { None } else { parsed(&body)? };
    let asked = asked.unwrap_or_default();
    let question = Question { r#where: asked.r#where, date_range: asked.date_range, ..Question::default() };
    let permit = service.limits.stream(&caller.owner(), answer_bytes(&question, analysis.max_buckets)).await?;
    let (state, whose, filters) = (&service, &caller, &question);
    let ask = |described: Arc<DescribedRelation>| {
        async move {
            let scope = filters.scope(dataset, &described, whose, &[])?;
            let request = AggregateRequest {
                of: about(dataset, whose, &scope)?,
                dimensions: dimensions(dataset, &described, analysis)?,
                measures: measures(&described, analysis)?,
                max_buckets: analysis.max_buckets,
                max_bytes: value_bytes(analysis.max_buckets),
            };
            let aggregated = dataset.ndjson.source.aggregate(request).ok_or_else(nobody)?;
            let found = timeout(state.config.limits.first_page, aggregated).await.map_err(|_| too_slow())?;
            let found = found.map_err(|error| told(&error.into(), &dataset.name))?;
            Ok((found, definition(dataset, &described, analysis, &scope)?))
        }
        .boxed()
    };
    let asked = service.by_description(dataset, ask).await;
    let (found, definition) = asked.map_err(|refusal| question.blamed(refusal))?;
    if found.too_large {
        return Err(too_large("the values of the buckets are too many bytes, or one of them is too long"));
    }
    let claim = |bucket: &AggregateBucket| BucketClaim {
        owner: caller.owner(),
        dataset: dataset.name.clone(),
        analysis: name.to_owned(),
        definition: definition.clone(),
        r#where: question.r#where.clone(),
        date_range: question.date_range.clone(),
        values: bucket.dimensions.iter().map(|value| value.text.clone()).collect(),
        expires: Utc::now().timestamp().saturating_add(service.config.bucket_key_seconds),
    };
    let buckets = found.buckets.iter().map(|bucket| {
        let key = service.signer.sign(&claim(bucket))?;
        if key.len() > KEY_BYTES_MAX {
            return Err(too_large("the key of a bucket would be too long"));
        }
        view(analysis, dataset, bucket, key)
    });
    let view = AnalysisView { buckets: buckets.collect::<Result<_, Refusal>>()?, truncated: found.truncated };
    let mut pieces = AnswerPieces::default();
    serde_json::to_writer(&mut pieces, &view).map_err(no_json)?;
    drop((found, view));
    Ok(pieces.answer(ClientPace::of(&service, &parts.extensions), service.stop.child_token(), permit))
}

/// What the values of the buckets may be together.
fn value_bytes(max_buckets: NonZeroU64) -> u64 {
    max_buckets.get().saturating_mul(VALUE_BYTES).saturating_add(VALUES_BYTES)
}

/// What the answer may take of memory: each bucket has a key, in which the filters of the question stand, and its values.
fn answer_bytes(question: &Question, max_buckets: NonZeroU64) -> u64 {
    let values = value_bytes(max_buckets).saturating_mul(VALUE_COPIES);
    let filters = serde_json::to_vec(&(&question.r#where, &question.date_range)).unwrap_or_default().len();
    let filters = u64::try_from(filters).unwrap_or(u64::MAX).saturating_mul(FILTER_COPIES);
    max_buckets.get().saturating_mul(filters.saturating_add(BUCKET_BYTES)).saturating_add(values)
}

/// The text of an answer, in pieces: one text that grows would be in memory twice.
#[derive(Default)]
struct AnswerPieces {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Write for AnswerPieces {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let room = ANSWER_PIECE_BYTES.saturating_sub(self.last.len());
        let (taken, _) = text.split_at(text.len().min(room));
        self.last.extend_from_slice(taken);
        if self.last.len() >= ANSWER_PIECE_BYTES {
            self.full.push(mem::take(&mut self.last).into());
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AnswerPieces {
    /// The answer; `held` is let go of once the client has it.
    fn answer(mut self, pace: ClientPace, stop: CancellationToken, held: impl Send + 'static) -> Response {
        self.full.push(self.last.into());
        let length: u64 = self.full.iter().map(|piece| u64::try_from(piece.len()).unwrap_or(u64::MAX)).sum();
        let fields = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), (CONTENT_LENGTH, length.into())];
        let pieces = stream::iter(self.full.into_iter().map(Ok));
        (fields, Body::new(paced(pieces, length, pace, stop, held))).into_response()
    }
}

fn too_large(what: &str) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "buckets_too_large", what)
        .with_detail("ask for fewer rows with where, or have the analysis group by what is shorter")
}

fn no_json(_: serde_json::Error) -> Refusal {
    Refusal::of_export(&ExportError::internal("a bucket is no JSON"))
}

fn nobody() -> Refusal {
    Refusal::of_export(&ExportError::new(ExportErrorKind::Usage, "the source serves nobody"))
}

pub(crate) fn too_slow() -> Refusal {
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "source_timeout", "the answer did not come in time").after(30)
}

/// What a caller is told of a source that failed, and the operator.
pub(crate) fn told(error: &ExportError, dataset: &str) -> Refusal {
    tracing::warn!(dataset, error = without_values(error), "a question to the source failed");
    Refusal::of_export(error)
}

pub(super) fn dimensions(
    dataset: &Dataset,
    described: &DescribedRelation,
    analysis: &Analysis,
) -> Result<Vec<Dimension>, Refusal> {
    let plain =
        analysis.dimensions.iter().map(|name| Ok(Dimension { column: scope_of(described, name)?, bucket: None }));
    let mut dimensions = plain.collect::<Result<Vec<_>, Refusal>>()?;
    if let (Some(unit), Some(date)) = (analysis.bucket, &dataset.date_column) {
        dimensions.push(Dimension { column: scope_of(described, date)?, bucket: Some(unit) });
    }
    Ok(dimensions)
}

fn scope_of(described: &DescribedRelation, name: &str) -> Result<ScopeColumn, Refusal> {
    Ok(column_of(described, name)?.scope.clone())
}

pub(super) fn measures(described: &DescribedRelation, analysis: &Analysis) -> Result<Vec<Measure>, Refusal> {
    let measure = |(kind, column): &(MeasureKind, String)| {
        let column = || scope_of(described, column);
        Ok(match kind {
            MeasureKind::Count => Measure::Count,
            MeasureKind::Sum => Measure::Sum(column()?),
            MeasureKind::Avg => Measure::Avg(column()?),
            MeasureKind::Min => Measure::Min(column()?),
            MeasureKind::Max => Measure::Max(column()?),
        })
    };
    analysis.measures.iter().map(measure).collect()
}

fn in_order<S: Serializer>(values: &[(String, Box<RawValue>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.iter().map(|(name, value)| (name, value)))
}

fn view(
    analysis: &Analysis,
    dataset: &Dataset,
    bucket: &AggregateBucket,
    bucket_key: String,
) -> Result<BucketView, Refusal> {
    let dimensions = analysis.dimension_names(dataset).zip(&bucket.dimensions);
    let dimensions = dimensions.map(|(name, value)| Ok((name.clone(), RawValue::from_string(value.json.clone())?)));
    let dimensions = dimensions.collect::<Result<_, serde_json::Error>>().map_err(no_json)?;
    let measures = analysis
        .measures
        .iter()
        .zip(&bucket.measures)
        .map(|((kind, column), json)| Ok((kind.output(column), RawValue::from_string(json.clone())?)));
    let measures = measures.collect::<Result<_, serde_json::Error>>().map_err(no_json)?;
    Ok(BucketView { dimensions, measures, bucket_key })
}

/// Answers with the rows of a bucket.
#[utoipa::path(
    post,
    path = "/v1/analyze/{dataset}/{analysis}/rows/export",
    operation_id = "exportBucketRows",
    params(
        ("dataset" = String, Path, description = "The name of the dataset"),
        ("analysis" = String, Path, description = "The name of the analysis"),
        ("Prefer" = Option<String>, Header, description = "respond-async queues the export"),
        ("Idempotency-Key" = Option<String>, Header, description = "Of an export that is queued: the same key with the same body is the same export"),
    ),
    request_body = RowsQuestion,
    responses(
        (status = 200, description = "The rows, as NDJSON or CSV, unless they are to wait", content(
            (String = "application/x-ndjson"),
            (String = "text/csv"),
        )),
        (status = 202, description = "The export is queued, as Prefer asks", body = JobView),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn rows(
    State(service): State<Arc<ServiceState>>,
    Path((dataset, analysis)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let queued = responds_async(&parts.headers);
    if !queued {
        streamable(parts.version)?;
    }
    let admitted = service.admit_analysis(service.caller(&parts.headers)?, &dataset, &analysis)?;
    let asked: RowsQuestion = parsed(&body_of(body, SIGNED_BODY_BYTES_MAX).await?)?;
    if queued {
        let RowsQuestion { format, columns, order_by, allow_empty, end_record, bucket_key } = asked;
        let question = Question { format, columns, order_by, allow_empty, end_record, ..Question::default() };
        let asked = JobQuestion::background(&dataset, question).of_bucket(analysis, bucket_key);
        return queue_or_stream(&service, admitted.0, asked, &parts).await;
    }
    let bucket = bucket_of(&service, admitted, asked.bucket_key).await?;
    let question = Question {
        format: asked.format,
        columns: asked.columns,
        r#where: bucket.r#where,
        date_range: bucket.date_range,
        order_by: asked.order_by,
        allow_empty: asked.allow_empty,
        end_record: asked.end_record,
    };
    stream_of(&service, &bucket.caller, bucket.dataset, &question, bucket.conditions, &parts).await
}

/// A bucket that a caller has the key of.
pub(crate) struct OpenedBucket<'a> {
    pub(crate) caller: Caller,
    pub(crate) dataset: &'a Dataset,
    pub(crate) r#where: Vec<Filter>,
    pub(crate) date_range: Option<DateRange>,
    pub(crate) conditions: Vec<ScopeCondition>,
}

/// What a bucket's key opens.
///
/// # Errors
/// It is missing, or is none of this caller and this analysis.
pub(crate) async fn bucket_of<'a>(
    service: &'a ServiceState,
    (caller, dataset, name, analysis): (Caller, &'a Dataset, &'a str, &'a Analysis),
    key: Option<String>,
) -> Result<OpenedBucket<'a>, Refusal> {
    let Some(key) = key else {
        let message = "bucket_key is missing";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bucket_key_required", message)
            .with_detail("ask for the analysis first: each of its buckets has a key"));
    };
    let claim = service.signer.read(&key, Utc::now().timestamp())?;
    let ours = claim.owner == caller.owner() && claim.dataset == dataset.name && claim.analysis == name;
    if !ours {
        return Err(invalid());
    }
    let described = service.described(dataset).await?;
    let filters = Question { r#where: claim.r#where, date_range: claim.date_range, ..Question::default() };
    // A filter on what is not granted any more is of an older definition too.
    let scope = filters.scope(dataset, &described, &caller, &[]).map_err(|_| invalid())?;
    if claim.definition != definition(dataset, &described, analysis, &scope)? {
        return Err(invalid());
    }
    let conditions = conditions(dataset, &described, analysis, claim.values)?;
    Ok(OpenedBucket { caller, dataset, r#where: filters.r#where, date_range: filters.date_range, conditions })
}

/// What a bucket is of, as far as it decides which rows are in it: a key opens those that were counted, or none.
fn definition(
    dataset: &Dataset,
    described: &DescribedRelation,
    analysis: &Analysis,
    scope: &RowScope,
) -> Result<String, Refusal> {
    let filtered: Vec<&ScopeColumn> = scope.conditions.iter().map(|condition| &condition.column).collect();
    let dimensions = dimensions(dataset, described, analysis)?;
    Ok(fingerprint(&(analysis, dimensions, filtered, &dataset.ndjson.shape.relation, &dataset.tenant)))
}

/// The rows of the bucket: the value of each of its dimensions.
fn conditions(
    dataset: &Dataset,
    described: &DescribedRelation,
    analysis: &Analysis,
    values: Vec<Option<String>>,
) -> Result<Vec<ScopeCondition>, Refusal> {
    let dimensions = dimensions(dataset, described, analysis)?;
    if dimensions.len() != values.len() {
        return Err(invalid());
    }
    let condition = |(Dimension { column, bucket }, value): (Dimension, Option<String>)| {
        let test = match (value, bucket) {
            (None, _) => ScopeTest::IsNull,
            (Some(start), Some(unit)) => ScopeTest::Bucket { unit, start },
            (Some(value), None) => ScopeTest::Equal(value),
        };
        ScopeCondition { column, test }
    };
    Ok(dimensions.into_iter().zip(values).map(condition).collect())
}

impl ServiceState {
    /// The caller, the dataset and the analysis that he may ask for.
    ///
    /// # Errors
    /// There is no such key, dataset or analysis; the caller asks too often, or may not.
    pub(crate) fn admit_analysis(
        &self,
        caller: Caller,
        dataset: &str,
        analysis: &str,
    ) -> Result<(Caller, &Dataset, &str, &Analysis), Refusal> {
        let (caller, dataset) = self.admit(caller, dataset)?;
        let found = dataset.analyses.get_key_value(analysis).ok_or_else(|| {
            Refusal::new(StatusCode::NOT_FOUND, "analysis_not_found", "there is no such analysis of the dataset")
        })?;
        if !caller.may_analyze(found.1) {
            return Err(Refusal::forbidden("the tier does not allow this analysis"));
        }
        Ok((caller, dataset, found.0, found.1))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn an_answer_of_many_pieces_is_whole_and_holds_its_memory_until_it_is_read() {
        let held = Arc::new(());
        let text: Vec<u8> = (0..u32::MAX).flat_map(u32::to_be_bytes).take(3 * ANSWER_PIECE_BYTES + 5).collect();
        let mut pieces = AnswerPieces::default();
        text.chunks(777).for_each(|chunk| pieces.write_all(chunk).unwrap());
        assert_eq!(pieces.full.iter().map(Bytes::len).collect::<Vec<_>>(), [ANSWER_PIECE_BYTES; 3]);
        let answer = pieces.answer(ClientPace::default(), CancellationToken::new(), Arc::clone(&held));
        assert_eq!(answer.headers()[CONTENT_LENGTH], text.len().to_string());
        assert_eq!(Arc::strong_count(&held), 2);
        assert!(to_bytes(answer.into_body(), usize::MAX).await.unwrap() == text);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn an_answer_reserves_what_its_keys_may_be() {
        let most = NonZeroU64::new(1_000).unwrap();
        let ask = |filters: &str| Question::parse(format!(r#"{{"where":{filters}}}"#).as_bytes()).unwrap();
        let values = 6 * ((1 << 20) + 64_000);
        assert_eq!(answer_bytes(&ask("[]"), most), values + 768_000 + 27_000);
        let long = "x".repeat(8_000);
        let asked = ask(&format!(r#"[{{"column":"id","op":"=","value":"{long}"}}]"#));
        let bytes = answer_bytes(&asked, most);
        assert!((24_000_000..26_000_000).contains(&(bytes - values)), "{bytes}");
    }
}
