//! `explain`: the page of an error code, or all codes.

use crate::{
    args::ExplainArgs,
    output::{self, Invalid},
    pages::{self, GROUPS},
};

pub fn explain(args: &ExplainArgs) -> anyhow::Result<u8> {
    match &args.code {
        Some(text) => print(text),
        None => {
            list();
            Ok(output::DONE)
        }
    }
}

/// `error[wrong_type]`, as a message begins, is taken too.
fn print(text: &str) -> anyhow::Result<u8> {
    let code = text.trim().trim_end_matches(':').trim_start_matches("error[").trim_end_matches(']');
    match pages::page(code) {
        Some(page) => {
            print!("{}", page.text);
            Ok(output::DONE)
        }
        None => {
            Err(Invalid("there is no such code; `siltstone explain` without one lists them all".to_owned())
                .into())
        }
    }
}

fn list() {
    let codes = GROUPS.iter().flat_map(|group| group.pages);
    let width = codes.map(|page| page.code.len()).max().unwrap_or_default();
    for (number, group) in GROUPS.iter().enumerate() {
        let gap = if number > 0 { "\n" } else { "" };
        println!("{gap}{}", group.title);
        for page in group.pages {
            println!("  {:width$}  {}", page.code, page.summary());
        }
    }
}
