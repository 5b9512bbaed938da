//! A whole body in memory.

use std::future::poll_fn;
use std::pin::Pin;

use hyper::body::{Body, Incoming};

use crate::refusal::Refusal;

/// Reads a body to its end, unless it has more than `most` bytes; that is refused with the variable that wants it gathered.
pub(crate) async fn gather(
    body: &mut Incoming,
    most: usize,
    variable: &'static str,
) -> Result<Vec<u8>, Refusal> {
    let too_large = || Refusal::BodyTooLarge {
        limit: most,
        variable,
    };
    // A length that the head tells is believed, so that nobody sends such a body in vain.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| Refusal::broken(&error))?;
        if let Ok(data) = frame.into_data() {
            if data.len() > most - bytes.len() {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}
