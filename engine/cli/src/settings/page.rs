//! The reference page, from the table.

use super::table::{Flag, SETTINGS};

/// `docs/settings.md`.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         This page is written by `sparklet config reference` from the table of settings; do not edit it.\n\n\
         A setting comes from the first of these that gives it: a flag, an environment variable, `[settings]` of the\n\
         pipeline, `sparklet.toml` in the working directory (or the pipeline's folder) or above, the user's\n\
         `$XDG_CONFIG_HOME/sparklet/config.toml` (`~/.config/sparklet/config.toml`), the default.\n\
         `sparklet config show --origin` says which. Files hold them by name: `memory = \"2GiB\"`.\n\n\
         | name | value | default | flag | environment | in `[settings]` | what it does |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let flag = match setting.flag {
            Some(Flag::Value(flag)) => format!("`--{flag}`"),
            Some(Flag::Switch(flag, _)) => format!("`--{flag}`"),
            None => String::new(),
        };
        let env = setting.env.map(|e| format!("`{e}`")).unwrap_or_default();
        page.push_str(&format!(
            "| `{}` | {} | `{}` | {} | {} | {} | {} |\n",
            setting.name,
            setting.kind.describe(),
            setting.default,
            flag,
            env,
            if setting.in_pipeline { "yes" } else { "no" },
            setting.doc,
        ));
    }
    page.push_str(
        "\nAny DataFusion option may be set by its own name, e.g. `--set datafusion.optimizer.prefer_hash_join=false` or\n\
         `\"datafusion.optimizer.prefer_hash_join\" = false` in a file. `STATE` stands for the state folder.\n\
         Sizes: `kB`, `MB`, `GB`, `TB` (decimal), `KiB`, `MiB`, `GiB`, `TiB` (binary), or plain bytes. Times: `ms`, `s`, `m`,\n\
         `h`, `d`, `w`, put together as in `1h30m`. `SPARKLET_LOG` sets what is logged to standard error, e.g. `debug` or\n\
         `sparklet_pipeline=trace`; nothing is logged without it.\n\n## Exit codes\n\n| code | meaning |\n|---|---|\n",
    );
    for (code, meaning) in crate::exit::TABLE {
        page.push_str(&format!("| {code} | {meaning} |\n"));
    }
    page
}
