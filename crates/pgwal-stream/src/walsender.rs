//! A connection as a walsender.

use std::time::{Duration, Instant};

use pgwal::TimelineId;

use crate::command::Command;
use crate::connection::{Connection, CopyEvent, CopyStart, Error, ResultSet};
use crate::message::NextTimeline;
use crate::receive::{Event, Row, Walsender};

/// A server that has been told that streaming ends gets so long to say so too.
const GOODBYE: Duration = Duration::from_secs(10);

impl Walsender for Connection {
    type Error = Error;

    fn major(&self) -> u8 {
        Connection::major(self).and_then(|major| u8::try_from(major).ok()).unwrap_or_default()
    }

    fn rows(&mut self, command: &Command<'_>) -> Result<Vec<Row>, Error> {
        Ok(self.query(&command.to_string())?.pop().map(|set| set.rows).unwrap_or_default())
    }

    fn start(&mut self, command: &Command<'_>) -> Result<Option<NextTimeline>, Error> {
        match self.copy_both(&command.to_string())? {
            CopyStart::Started(_) => Ok(None),
            CopyStart::Finished(sets) => match next_timeline(&sets)? {
                Some(next) => Ok(Some(next)),
                None => Err(Error::Message { message: "the answer to START_REPLICATION", field: "next_tli" }),
            },
        }
    }

    fn next(&mut self, until: Instant) -> Result<Event<'_>, Error> {
        Ok(match self.next_copy(Some(until))? {
            CopyEvent::Data(message) => Event::Message(message),
            CopyEvent::Timeout | CopyEvent::Interrupted => Event::Nothing,
            CopyEvent::Done => Event::End,
            CopyEvent::ShutDown => Event::ShutDown,
        })
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Error> {
        self.send_copy(message)
    }

    fn end(&mut self) -> Result<Option<NextTimeline>, Error> {
        next_timeline(&self.finish_copy(Some(GOODBYE))?)
    }

    fn is_refusal(error: &Error) -> bool {
        matches!(error, Error::Server(error) if !error.is_fatal())
    }
}

/// The next timeline, where the server says one: `next_tli` and `next_tli_startpos`. C: `ReadEndOfStreamingResult`, receivelog.c.
fn next_timeline(sets: &[ResultSet]) -> Result<Option<NextTimeline>, Error> {
    let wrong = |field| Error::Message { message: "the result set at the end of streaming", field };
    let Some(set) = sets.iter().find(|set| !set.columns.is_empty()) else { return Ok(None) };
    if set.rows.len() != 1 || set.columns.len() < 2 {
        return Err(wrong("row of two columns"));
    }
    let timeline = set.text(0, 0).and_then(|text| text.parse().ok()).ok_or(wrong("next_tli"))?;
    let start = set.text(0, 1).and_then(|text| text.parse().ok()).ok_or(wrong("next_tli_startpos"))?;
    Ok(Some(NextTimeline { timeline: TimelineId(timeline), start }))
}
