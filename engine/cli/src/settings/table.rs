//! The one table of settings: defaults, command-line help and the reference page all come from here.

use sparklet_pipeline::suggest;

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Dotted name, as in files and in `--set NAME=VALUE`.
    pub name: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// Value where nothing else is said.
    pub default: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// How the command line sets it.
    pub flag: Option<Flag>,
    /// Environment variable.
    pub env: Option<&'static str>,
    /// Which commands take the flag.
    pub group: Group,
    /// May stand in `[settings]` of a pipeline.
    pub in_pipeline: bool,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes (`2GiB`) or a share of the machine's memory (`70%`).
    Memory,
    /// Bytes, or `none`.
    Size,
    /// A whole number from 1.
    Count,
    /// A whole number from 1, or `none`.
    Limit,
    /// A whole number from 1, or `auto`.
    Slots,
    /// A time such as `30s`, `10m`, `1h30m`, `90d`, or `none`.
    Duration,
    /// A folder; relative ones start at the file that says so, or at the working directory.
    Path,
    /// Letters, digits, `_` and `-`.
    Name,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A command-line flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `--NAME VALUE`.
    Value(&'static str),
    /// `--NAME` stands for this value.
    Switch(&'static str, &'static str),
}

/// Which commands take a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// All commands.
    Look,
    /// Commands that use the state folder.
    State,
    /// Commands that plan or run.
    Engine,
}

/// All settings, in the order of the reference page.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "memory",
        kind: Kind::Memory,
        default: "70%",
        doc: "Bound of the memory pool: bytes (`2GiB`) or a share of the memory that the process may use",
        flag: Some(Flag::Value("memory")),
        env: Some("SPARKLET_MEMORY"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "slots",
        kind: Kind::Slots,
        default: "auto",
        doc: "Tasks at the same time; `auto`: the cores that the process may use",
        flag: Some(Flag::Value("slots")),
        env: Some("SPARKLET_SLOTS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "batch_size",
        kind: Kind::Count,
        default: "8192",
        doc: "Rows in a batch",
        flag: Some(Flag::Value("batch-size")),
        env: Some("SPARKLET_BATCH_SIZE"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "spill_dir",
        kind: Kind::Path,
        default: "STATE/spill",
        doc: "Folder for spill files; a fast local disk with room",
        flag: Some(Flag::Value("spill-dir")),
        env: Some("SPARKLET_SPILL_DIR"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "timeout",
        kind: Kind::Duration,
        default: "none",
        doc: "Time limit of a run (`30s`, `10m`, `1h30m`), or `none`",
        flag: Some(Flag::Value("timeout")),
        env: Some("SPARKLET_TIMEOUT"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "learning",
        kind: Kind::Choice(&["on", "observe", "off"]),
        default: "on",
        doc: "What history is used for: `on` plans from it and adds to it, `observe` adds to it and says what it would choose, \
              `off` does neither",
        flag: Some(Flag::Value("learning")),
        env: Some("SPARKLET_LEARNING"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive",
        kind: Kind::Choice(&["on", "off", "force"]),
        default: "on",
        doc: "Whether a plan may change while it runs: `on` where the predicted work is worth it, `force` wherever it can be done, \
              `off` nowhere; the `adaptive_…` settings turn off single rules",
        flag: Some(Flag::Value("adaptive")),
        env: Some("SPARKLET_ADAPTIVE"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_split_skew",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, cut hot buckets of joins into slices, for which slots that are done with theirs help out",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_SPLIT_SKEW"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_split_groups",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, cut hot groups of aggregates with DISTINCT arguments into slices and compute them in two phases",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_SPLIT_GROUPS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_split_windows",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, cut hot partitions of windows into slices: running functions in the window's order, those of the whole partition as an aggregate",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_SPLIT_WINDOWS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_broadcast",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, change a partitioned join into a broadcast where one input turns out small, and back where it turns out large",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_BROADCAST"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_skip_empty",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, leave out what an empty input makes empty",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_SKIP_EMPTY"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_memory",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, run joins whose build side would not fit in memory over smaller buckets, and a query that ran out of memory once more, in stages",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_MEMORY"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_share",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "Compute a part of a plan that stands in it more than once a single time, and keep its rows for all who read them",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_SHARE"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_share_min_bytes",
        kind: Kind::Size,
        default: "8MiB",
        doc: "Size of the files that a query reads from which such parts are looked for; `none`: from any size",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_SHARE_MIN_BYTES"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_known_keys",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "Use what earlier runs have measured of keys: begin with the split where one is heavy, do not look where none is",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_KNOWN_KEYS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_push_keys",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, read an input of a join with the range, or a list, of the keys of the input that is finished",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_PUSH_KEYS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_reorder",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, run the joins that are still to come in another order where a finished input has other rows than were expected",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_REORDER"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_slots",
        kind: Kind::Choice(&["on", "off"]),
        default: "on",
        doc: "In mid-run, change how many slots take tasks: fewer while the memory pool is nearly full, or while other queries of the process run",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_SLOTS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_min_rows",
        kind: Kind::Count,
        default: "8388608",
        doc: "Predicted rows of both inputs of a join, together, from which its inputs run first, as stages that are measured",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_MIN_ROWS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "adaptive_min_slots",
        kind: Kind::Count,
        default: "4",
        doc: "Fewest slots for which inputs of large joins run as stages to look for hot keys; with fewer, there is too little to win",
        flag: None,
        env: Some("SPARKLET_ADAPTIVE_MIN_SLOTS"),
        group: Group::Engine,
        in_pipeline: true,
    },
    Setting {
        name: "environment",
        kind: Kind::Name,
        default: "default",
        doc: "Environment that runs are remembered under; runs of one do not teach another",
        flag: Some(Flag::Value("environment")),
        env: Some("SPARKLET_ENVIRONMENT"),
        group: Group::State,
        in_pipeline: true,
    },
    Setting {
        name: "state",
        kind: Kind::Path,
        default: ".sparklet",
        doc: "State folder (history, locks, work files); by default beside the project file, else beside the pipeline, \
              else the nearest one above the working directory",
        flag: Some(Flag::Value("state")),
        env: Some("SPARKLET_STATE"),
        group: Group::State,
        in_pipeline: false,
    },
    Setting {
        name: "history.max_age",
        kind: Kind::Duration,
        default: "none",
        doc: "runs older than this (`90d`) are forgotten, by `history prune` and about every 32nd run; or `none`",
        flag: None,
        env: Some("SPARKLET_HISTORY_MAX_AGE"),
        group: Group::State,
        in_pipeline: false,
    },
    Setting {
        name: "history.max_runs",
        kind: Kind::Limit,
        default: "1000",
        doc: "this many runs of each pipeline and environment are kept, likewise; or `none`",
        flag: None,
        env: Some("SPARKLET_HISTORY_MAX_RUNS"),
        group: Group::State,
        in_pipeline: false,
    },
    Setting {
        name: "history.max_size",
        kind: Kind::Size,
        default: "400MB",
        doc: "the oldest runs are forgotten until the store is below this, likewise; or `none`",
        flag: None,
        env: Some("SPARKLET_HISTORY_MAX_SIZE"),
        group: Group::State,
        in_pipeline: false,
    },
    Setting {
        name: "history.values",
        kind: Kind::Choice(&["plain", "hashed"]),
        default: "plain",
        doc: "what is kept of values of the data (literals, frequent keys, parameters, messages): `plain`, or `hashed`: \
              hashes in their place",
        flag: None,
        env: Some("SPARKLET_HISTORY_VALUES"),
        group: Group::State,
        in_pipeline: false,
    },
    Setting {
        name: "failed.max_age",
        kind: Kind::Duration,
        default: "30d",
        doc: "rows that failed a check, in `STATE/failed/RUN/`, are removed by a later run when they are older than this; or `none`",
        flag: None,
        env: Some("SPARKLET_FAILED_MAX_AGE"),
        group: Group::State,
        in_pipeline: false,
    },
    Setting {
        name: "failed.max_runs",
        kind: Kind::Limit,
        default: "100",
        doc: "such rows of so many runs of all pipelines of the state folder are kept, the newest; or `none`",
        flag: None,
        env: Some("SPARKLET_FAILED_MAX_RUNS"),
        group: Group::State,
        in_pipeline: false,
    },
    Setting {
        name: "progress",
        kind: Kind::Choice(&["auto", "never"]),
        default: "auto",
        doc: "Progress bars: `auto` shows them where standard error is a terminal, `never` nowhere",
        flag: Some(Flag::Switch("no-progress", "never")),
        env: Some("SPARKLET_PROGRESS"),
        group: Group::Look,
        in_pipeline: false,
    },
    Setting {
        name: "color",
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: "auto",
        doc: "Colours: `auto` uses them on a terminal; `NO_COLOR` in the environment means `never`",
        flag: Some(Flag::Value("color")),
        env: Some("SPARKLET_COLOR"),
        group: Group::Look,
        in_pipeline: false,
    },
];

/// The setting called `name`.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

impl Setting {
    /// What `--help` says.
    pub fn help(&self) -> String {
        let env = self.env.map(|e| format!(" [env: {e}]")).unwrap_or_default();
        match self.flag {
            Some(Flag::Switch(_, value)) => format!("Setting `{}` is `{value}`: {}{env}", self.name, self.doc),
            _ => format!("{} [default: {}]{env}", self.doc, self.default),
        }
    }
}

impl Kind {
    /// Few words for the reference page.
    pub fn describe(self) -> String {
        match self {
            Self::Memory => "bytes or percent".to_owned(),
            Self::Size => "bytes or `none`".to_owned(),
            Self::Count => "number".to_owned(),
            Self::Limit => "number or `none`".to_owned(),
            Self::Slots => "number or `auto`".to_owned(),
            Self::Duration => "duration or `none`".to_owned(),
            Self::Path => "folder".to_owned(),
            Self::Name => "name".to_owned(),
            Self::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        }
    }

    /// What to write, as a hint.
    pub fn wanted(self) -> Option<String> {
        let text = match self {
            Self::Memory => "write bytes such as `2GiB`, or a share such as `70%`",
            Self::Size => "write bytes such as `2GiB`, or `none`",
            Self::Count => "write a whole number from 1",
            Self::Limit => "write a whole number from 1, or `none`",
            Self::Slots => "write a whole number from 1 to 4096, or `auto`",
            Self::Duration => "write a time such as `30s`, `1h30m` or `90d`, or `none`",
            Self::Path => "write a folder",
            Self::Name => "write 1 to 64 letters, digits, `_` and `-`, a letter first",
            Self::Choice(words) => return Some(format!("write one of {}", suggest::listing(words.iter().copied()))),
        };
        Some(text.to_owned())
    }

    /// Placeholder in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Memory | Self::Size => "SIZE",
            Self::Count | Self::Limit | Self::Slots => "N",
            Self::Duration => "TIME",
            Self::Path => "DIR",
            Self::Name => "NAME",
            Self::Choice(["auto", "always", "never"]) => "auto|always|never",
            Self::Choice(["on", "observe", "off"]) => "on|observe|off",
            Self::Choice(["on", "off", "force"]) => "on|off|force",
            Self::Choice(_) => "WORD",
        }
    }
}
