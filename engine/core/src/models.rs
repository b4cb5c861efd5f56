//! Cost models of a state folder: the one that serves, and training when a run is over.

use std::sync::{Arc, OnceLock};

use sparklet_history::{Fingerprint, History, HistoryError, Models, Outcome, RunFilter, Store};
use sparklet_optimizer::cost::{
    self, Accuracy, AnalyticModel, CostModel, Evaluation, Interval, Model, ModelVersion, PlanFeatures, Prediction,
    Sample, Verdict,
};

/// Runs that a model is trained on at the most, the last ones: what bounds reading.
const MOST_RUNS: usize = 64;

/// Operators that are read for it: learners see the newest, an operator's own past goes back further.
const MOST_OPERATORS: usize = 4 * cost::MOST_OPERATORS;

/// A model is due when there is one new run for so many that the last was trained on.
const RUNS_FOR_ONE: u64 = 10;

/// The model that serves, and why a trained one does not where one should.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The model.
    pub model: Model,
    /// Why not the one that was to serve; in a sentence.
    pub ignored: Option<String>,
}

/// The model that serves in an environment; the prior where none was trained yet, or where that one cannot be used.
pub fn serving(history: &History, environment: &str) -> Serving {
    let models = history.models(environment);
    let Some(number) = models.serving() else {
        return Serving { model: cost::prior().clone(), ignored: None };
    };
    match read(&models, number) {
        Ok(model) if model.provenance().datafusion == datafusion::DATAFUSION_VERSION => {
            Serving { model, ignored: None }
        }
        Ok(model) => {
            let trained = &model.provenance().datafusion;
            let reason = format!(
                "model {number} was trained on DataFusion {trained}, and this is {}: runs are observed before a new one serves",
                datafusion::DATAFUSION_VERSION
            );
            Serving { model: cost::prior().clone(), ignored: Some(reason) }
        }
        Err(reason) => {
            Serving { model: cost::prior().clone(), ignored: Some(format!("model {number} is not used: {reason}")) }
        }
    }
}

/// The model that serves in an environment, read when a plan is first predicted.
#[derive(Debug)]
pub struct ServingModel {
    history: History,
    environment: String,
    model: OnceLock<Model>,
}

impl ServingModel {
    /// Of `environment` in the state folder of `history`.
    pub fn new(history: History, environment: impl Into<String>) -> Self {
        Self { history, environment: environment.into(), model: OnceLock::new() }
    }

    fn model(&self) -> &Model {
        self.model.get_or_init(|| {
            let serving = serving(&self.history, &self.environment);
            if let Some(ignored) = serving.ignored {
                tracing::debug!("{ignored}");
            }
            serving.model
        })
    }
}

impl CostModel for ServingModel {
    fn predict(&self, plan: &PlanFeatures) -> Prediction {
        self.model().predict(plan)
    }

    fn spread(&self, known: f64) -> Interval {
        self.model().spread(known)
    }

    fn version(&self) -> ModelVersion {
        self.model().version()
    }
}

/// The model that a record names by its version; none where it is not kept any more.
pub fn by_version(history: &History, environment: &str, version: &str) -> Option<Arc<dyn CostModel>> {
    let is_it = |model: &dyn CostModel| model.version().to_string() == version;
    let analytic = AnalyticModel::default();
    if is_it(&analytic) {
        return Some(Arc::new(analytic));
    }
    if is_it(cost::prior()) {
        return Some(Arc::new(cost::prior().clone()));
    }
    let models = history.models(environment);
    let numbers = models.numbers();
    let kept = numbers.iter().rev().filter_map(|number| read(&models, *number).ok()).find(|model| is_it(model))?;
    Some(Arc::new(kept))
}

/// A model by its number.
///
/// # Errors
/// It is not there, damaged, or of another format; in words.
pub fn read(models: &Models, number: u32) -> Result<Model, String> {
    let json = models.read(number).map_err(|error| error.to_string())?;
    let model = Model::from_json(&json).map_err(|error| error.to_string())?;
    let hash = Fingerprint::of(&String::from_utf8_lossy(&json)).to_string();
    Ok(model.with_version(ModelVersion::Trained { number, hash }))
}

/// What came of training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Number of the new model.
    pub number: u32,
    /// Whether it serves.
    pub verdict: Verdict,
    /// The model that has served so far, on runs that it had not seen.
    pub champion: Accuracy,
    /// The new one on the same runs, without having seen them.
    pub challenger: Accuracy,
}

/// Trains a model on the last runs of an environment, and lets it serve where it is no worse. None where nothing is to be learned: too few
/// operators, or, unless `always`, too few new runs since the last one.
///
/// # Errors
/// The history cannot be read or written.
pub fn train(history: &History, environment: &str, always: bool) -> Result<Option<Trained>, HistoryError> {
    let models = history.models(environment);
    let champion = serving(history, environment).model;
    let store = history.open()?;
    if !always && !is_due(&store, environment, &models)? {
        return Ok(None);
    }
    let samples = samples(&store, environment)?;
    store.close();
    let Some(training) = cost::train(&samples, cost::prior(), &champion, datafusion::DATAFUSION_VERSION) else {
        return Ok(None);
    };
    let json = training
        .model
        .to_json()
        .map_err(|error| HistoryError::Record { run: "of a model".to_owned(), detail: error.to_string() })?;
    let number = models.add(&json, training.verdict == Verdict::Serves)?;
    let (champion, challenger) = (training.champion, training.challenger);
    Ok(Some(Trained { number, verdict: training.verdict, champion, challenger }))
}

fn is_due(store: &Store, environment: &str, models: &Models) -> Result<bool, HistoryError> {
    let Some(last) = models.numbers().last().and_then(|number| read(models, *number).ok()) else { return Ok(true) };
    let of = last.provenance();
    let new = store
        .runs(&filter(environment), MOST_RUNS)?
        .iter()
        .take_while(|run| run.started_at.timestamp_micros() > of.through_us)
        .count() as u64;
    Ok(new > of.runs / RUNS_FOR_ONE)
}

fn filter(environment: &str) -> RunFilter {
    RunFilter { environment: Some(environment.to_owned()), outcome: Some(Outcome::Succeeded), ..RunFilter::default() }
}

/// What the last runs of an environment teach, of all its pipelines; the oldest first.
///
/// # Errors
/// The history cannot be read.
pub fn samples(store: &Store, environment: &str) -> Result<Vec<Sample>, HistoryError> {
    let mut samples = Vec::new();
    let mut operators = 0;
    for summary in store.runs(&filter(environment), MOST_RUNS)? {
        if operators >= MOST_OPERATORS {
            break;
        }
        // A record that cannot be read is `history verify`'s to tell. Another version of the engine has other costs.
        let Ok(run) = store.run(summary.id.as_str()) else { continue };
        if run.engine.datafusion != datafusion::DATAFUSION_VERSION {
            continue;
        }
        let of_run = cost::samples(&run);
        operators += of_run.iter().map(|sample| sample.per_operator.len()).sum::<usize>();
        samples.extend(of_run);
    }
    samples.sort_by_key(|sample| sample.at_us);
    Ok(samples)
}

/// How well models would have predicted `samples`, by replaying them.
pub fn evaluate(samples: &[Sample]) -> Evaluation {
    cost::evaluate(samples, cost::prior(), datafusion::DATAFUSION_VERSION)
}
