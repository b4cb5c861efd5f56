//! Command-line flags, made from the table.

use std::collections::BTreeMap;
use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::layer::Given;
use super::table::{Flag, Group, Kind, SETTINGS, Setting};

/// Heading of the engine's flags in `--help`.
const HEADING: &str = "Settings";

/// Place of the first setting in `--help`: after a command's own flags.
const ORDER: usize = 500;

/// Flags that every command takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LookFlags(BTreeMap<String, String>);

/// Flags of commands that use the state folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateFlags(BTreeMap<String, String>);

/// Flags of commands that plan or run: the state's, the engine's and `--set`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineFlags {
    values: BTreeMap<String, String>,
    set: Vec<String>,
}

impl LookFlags {
    /// As a layer's values.
    pub fn given(&self, cwd: &Path) -> BTreeMap<String, Given> {
        given(&self.0, cwd)
    }
}

impl StateFlags {
    /// As a layer's values.
    pub fn given(&self, cwd: &Path) -> BTreeMap<String, Given> {
        given(&self.0, cwd)
    }
}

impl EngineFlags {
    /// As a layer's values; an error names the `--set` that is not `NAME=VALUE`.
    pub fn given(&self, cwd: &Path) -> Result<BTreeMap<String, Given>, String> {
        let mut values = given(&self.values, cwd);
        for text in &self.set {
            let Some((name, value)) = text.split_once('=') else {
                return Err(format!("`--set {text}` has no `=`: write `--set NAME=VALUE`"));
            };
            let by = format!("--set {name}");
            let given = Given { text: value.trim().to_owned(), by, place: None, base: cwd.to_owned() };
            values.insert(name.trim().to_owned(), given);
        }
        Ok(values)
    }
}

fn given(values: &BTreeMap<String, String>, cwd: &Path) -> BTreeMap<String, Given> {
    let one = |(name, text): (&String, &String)| {
        let flag = SETTINGS.iter().find(|s| s.name == name).and_then(|s| s.flag);
        let by = match flag {
            Some(Flag::Value(flag) | Flag::Switch(flag, _)) => format!("--{flag}"),
            None => format!("--set {name}"),
        };
        (name.clone(), Given { text: text.clone(), by, place: None, base: cwd.to_owned() })
    };
    values.iter().map(one).collect()
}

fn settings_of(groups: &'static [Group]) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |s| groups.contains(&s.group))
}

fn add(mut command: Command, groups: &'static [Group]) -> Command {
    for (place, setting) in SETTINGS.iter().enumerate().filter(|(_, s)| groups.contains(&s.group)) {
        let arg = Arg::new(setting.name)
            .help(setting.help())
            .help_heading(HEADING)
            .display_order(ORDER + place)
            .global(groups == [Group::Look]);
        let arg = match setting.flag {
            Some(Flag::Value(flag)) => {
                let arg = arg.long(flag).value_name(setting.kind.placeholder());
                // Words are checked by clap, which lists them for completion; numbers by the table, as for files.
                if let Kind::Choice(words) = setting.kind {
                    arg.value_parser(PossibleValuesParser::new(words).map(|s| s)).hide_possible_values(true)
                } else {
                    arg
                }
            }
            Some(Flag::Switch(flag, _)) => arg.long(flag).action(ArgAction::SetTrue),
            None => continue,
        };
        command = command.arg(arg);
    }
    command
}

fn take(matches: &ArgMatches, groups: &'static [Group]) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for setting in settings_of(groups) {
        let text = match setting.flag {
            Some(Flag::Value(_)) => matches.get_one::<String>(setting.name).cloned(),
            Some(Flag::Switch(_, value)) => matches.get_flag(setting.name).then(|| value.to_owned()),
            None => None,
        };
        if let Some(text) = text {
            values.insert(setting.name.to_owned(), text);
        }
    }
    values
}

impl FromArgMatches for LookFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(take(matches, &[Group::Look])))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(take(matches, &[Group::Look]));
        Ok(())
    }
}

impl Args for LookFlags {
    fn augment_args(command: Command) -> Command {
        add(command, &[Group::Look])
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for StateFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(take(matches, &[Group::State])))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(take(matches, &[Group::State]));
        Ok(())
    }
}

impl Args for StateFlags {
    fn augment_args(command: Command) -> Command {
        add(command, &[Group::State])
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for EngineFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let set = matches.get_many::<String>("set").unwrap_or_default().cloned().collect();
        Ok(Self { values: take(matches, &[Group::Engine, Group::State]), set })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let new = Self::from_arg_matches(matches)?;
        self.values.extend(new.values);
        self.set.extend(new.set);
        Ok(())
    }
}

impl Args for EngineFlags {
    fn augment_args(command: Command) -> Command {
        let set = Arg::new("set")
            .long("set")
            .value_name("NAME=VALUE")
            .action(ArgAction::Append)
            .help("Set any setting by its name, DataFusion's `datafusion.…` included; may be given several times")
            .help_heading(HEADING)
            .display_order(ORDER + SETTINGS.len());
        add(command, &[Group::Engine, Group::State]).arg(set)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
