//! One engine as a process of its own that runs queries as it is told: what `benches/peers` sets beside other engines.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;
use sparklet_history::{History, HistoryOptions, Remembered};

use crate::engine::{Plain, Settings, Sparklet, learn};
use crate::error::{Failure, Result};
use crate::home::Workload;
use crate::measure::Cost;
use crate::queries::Query;
use crate::record::Trace;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// DataFusion as it is.
    Plain,
    /// Sparklet, which remembers each round.
    Sparklet,
}

/// What an engine runs with.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) engine: Engine,
    pub(crate) workload: Workload,
    pub(crate) settings: Settings,
    pub(crate) tables: Vec<(String, PathBuf)>,
    /// Folder of the history.
    pub(crate) state: PathBuf,
}

/// What a line that was read has led to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
enum Reply {
    Ready { ready: bool },
    Done { rows: u64, wall_us: u64, cpu_us: u64 },
    Failed { error: String },
}

/// Reads lines from `input` and answers each with a line of JSON: the number of a query runs it, `remember` ends a round and opens the
/// engine anew (sparklet remembers the round first), everything else is refused. Ends with its input.
pub(crate) async fn serve(
    setting: &Setting,
    queries: &[Query],
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    let history = History::new(setting.state.clone(), HistoryOptions::default());
    let mut peer = Peer { setting, running: start(setting, &history).await?, history };
    say(out, &Reply::Ready { ready: true })?;
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let reply = match line.trim() {
            "remember" => peer.remember().await.map(|()| Reply::Ready { ready: true }),
            number => match queries.iter().find(|query| query.number.to_string() == number) {
                Some(query) => peer.run(query).await,
                None => Err(Failure::new(format!("there is no query `{number}`"))),
            },
        };
        say(out, &reply.unwrap_or_else(|failure| Reply::Failed { error: failure.to_string() }))?;
        line.clear();
    }
    Ok(())
}

fn say(out: &mut dyn Write, reply: &Reply) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string(reply).map_err(|e| Failure::new(e.to_string()))?)?;
    Ok(out.flush()?)
}

enum Running {
    Plain(Plain),
    Sparklet { engine: Box<Sparklet>, trace: Trace },
}

struct Peer<'a> {
    setting: &'a Setting,
    history: History,
    running: Running,
}

impl Peer<'_> {
    async fn run(&mut self, query: &Query) -> Result<Reply> {
        let done = |rows, cost: Cost| Reply::Done { rows, wall_us: cost.wall_us, cpu_us: cost.cpu_us };
        match &mut self.running {
            Running::Plain(plain) => {
                let answer = plain.run(&query.sql).await?;
                Ok(done(answer.batches.iter().map(|b| b.num_rows() as u64).sum(), answer.cost))
            }
            Running::Sparklet { engine, trace } => {
                let (answer, prepared) = engine.run(&query.name(), &query.sql).await?;
                let rows = answer.batches.iter().map(|b| b.num_rows() as u64).sum();
                let observed = prepared.observe_with_texts();
                trace.add(&query.name(), &query.sql, answer.cost, rows, &prepared, observed);
                Ok(done(rows, answer.cost))
            }
        }
    }

    async fn remember(&mut self) -> Result<()> {
        let fresh = start(self.setting, &self.history).await?;
        if let Running::Sparklet { engine, trace } = std::mem::replace(&mut self.running, fresh) {
            let (record, texts) = trace.finish(engine.session(), &engine.sources);
            match self.history.remember(&record, &texts) {
                Remembered::Stored { .. } => learn(&self.history).map_err(|error| Failure::new(error.to_string()))?,
                other => return Err(Failure::new(format!("the round was not remembered: {other:?}"))),
            }
        }
        Ok(())
    }
}

async fn start(setting: &Setting, history: &History) -> Result<Running> {
    Ok(match setting.engine {
        Engine::Plain => {
            let plain = Plain::new(&setting.settings, &BTreeMap::new())?;
            plain.register(&setting.tables).await?;
            Running::Plain(plain)
        }
        Engine::Sparklet => {
            let mut engine = Box::new(Sparklet::new(&setting.settings, setting.workload.name(), Some(history))?);
            engine.register(&setting.tables).await?;
            Running::Sparklet { engine, trace: Trace::default() }
        }
    })
}
