//! `spec check`, `spec schema`, `spec reference`.

use siltstone_spec::{Fault, Faults, Spec};

use crate::{
    args::{SpecArgs, SpecCommand},
    output,
};

pub fn spec(command: SpecCommand) -> anyhow::Result<u8> {
    match command {
        SpecCommand::Check(args) => check(&args),
        SpecCommand::Schema => {
            output::print_json(&siltstone_spec::json_schema())?;
            Ok(output::DONE)
        }
        SpecCommand::Reference => {
            print!("{}", siltstone_spec::reference_markdown());
            Ok(output::DONE)
        }
    }
}

fn check(args: &SpecArgs) -> anyhow::Result<u8> {
    match load(args) {
        Ok(spec) => {
            let tables: Vec<_> = spec.tables.iter().map(|table| table.name.as_str()).collect();
            if args.json {
                output::print_json(&serde_json::json!({"valid": true, "tables": tables, "faults": []}))?;
            } else {
                println!("{}: valid, {} table(s): {}", args.file.display(), tables.len(), tables.join(", "));
            }
            Ok(output::DONE)
        }
        Err(faults) => {
            if args.json {
                output::print_json(
                    &serde_json::json!({"valid": false, "tables": [], "faults": faults_json(&faults)}),
                )?;
            } else {
                eprintln!("{faults}");
                output::print_hint([faults.code()]);
            }
            Ok(output::INVALID)
        }
    }
}

/// The spec, if nothing that can be known without asking anybody is wrong with it.
fn load(args: &SpecArgs) -> Result<Spec, Faults> {
    let spec = Spec::load(&args.file)?;
    let faults: Vec<Fault> = siltstone_worker::inspect::unfit_transforms(&spec)
        .into_iter()
        .map(|(index, message)| Fault { line: 0, column: 0, path: format!("tables[{index}]"), message })
        .collect();
    if faults.is_empty() { Ok(spec) } else { Err(Faults { file: args.file.display().to_string(), faults }) }
}

fn faults_json(faults: &siltstone_spec::Faults) -> Vec<serde_json::Value> {
    faults
        .faults
        .iter()
        .map(|fault| {
            serde_json::json!({
                "file": faults.file,
                "line": fault.line,
                "column": fault.column,
                "path": fault.path,
                "message": fault.message,
                "code": faults.code(),
            })
        })
        .collect()
}
