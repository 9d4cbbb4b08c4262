//! For `object_store` 0.14.

pub use ::object_store;

#[path = "versioned/mod.rs"]
mod versioned;

pub use versioned::*;

/// The same answer without its body; what is left of one whose body is read.
fn emptied(answer: &object_store::GetResult) -> object_store::GetResult {
    object_store::GetResult {
        payload: nothing(),
        meta: answer.meta.clone(),
        range: answer.range.clone(),
        attributes: answer.attributes.clone(),
        extensions: answer.extensions.clone(),
    }
}
