//! Several texts written side by side: each step reads the weights once for all of them.

use crate::generate::{Finish, Generation, GeneratorOptions, Speed};
use crate::model::LanguageModel;
use crate::runner::{CHUNK, Runner};
use crate::sample::{Sampler, Sampling};
use crate::state::{Cache, Place};
use crate::writer::Writer;
use fewbit_core::Result;
use std::collections::VecDeque;
use std::time::Instant;

/// Tokens of prompts between two tokens of those that are being written: as many as share the
/// weights once they are taken apart. More would keep readers waiting for little.
const PIECE: usize = 128;

/// A text to be continued.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its tokens.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// When to stop.
    pub limits: Generation,
}

/// Number of a request, in the order in which they were added, from 0 on.
pub type Ticket = usize;

/// What a batch tells about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'e> {
    /// The next piece of its text.
    Text(&'e str),
    /// It has ended.
    End(Answer),
}

/// What was written for a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
    /// Tokens, and seconds from when the request's turn came. Others run in them too.
    pub speed: Speed,
}

/// Called with each event; where it returns false, that request is cancelled.
pub type BatchListener<'l> = dyn FnMut(Ticket, Event) -> bool + 'l;

/// A model that continues many texts at once. Requests may be added at any time; each gets the
/// tokens, to the bit of their logits, that [`Generator`](crate::Generator) would give it alone.
pub struct Batch<'m> {
    runner: Runner<'m>,
    /// Most texts that are written at once.
    most: usize,
    waiting: VecDeque<(Ticket, Request)>,
    /// The text whose prompt is being computed.
    entering: Option<Entering<'m>>,
    /// A text for each place in the cache; free places run along with a token that nobody sees.
    places: Vec<Option<Text<'m>>>,
    cache: Cache,
    next: Ticket,
}

/// A text that is being written.
struct Text<'m> {
    ticket: Ticket,
    writer: Writer<'m>,
    sampler: Sampler,
    speed: Speed,
    began: Instant,
}

/// A text with a cache of its own, of whose prompt the first tokens are computed.
struct Entering<'m> {
    text: Text<'m>,
    cache: Cache,
    done: usize,
}

impl<'m> Batch<'m> {
    /// Prepares a model to write `most` texts at once (at least one).
    ///
    /// # Errors
    /// As [`Generator::new`](crate::Generator::new).
    pub fn new(
        model: &'m LanguageModel,
        options: &GeneratorOptions,
        most: usize,
    ) -> Result<Batch<'m>> {
        let runner = Runner::new(model, options)?;
        let cache = runner.cache()?;
        let (waiting, places) = (VecDeque::new(), Vec::new());
        Ok(Batch { runner, most: most.max(1), waiting, entering: None, places, cache, next: 0 })
    }

    /// Adds a text; it begins when there is a place for it.
    ///
    /// # Errors
    /// When it is empty or longer than the context, or a token is not in the vocabulary.
    pub fn add(&mut self, request: Request) -> Result<Ticket> {
        self.runner.check(&request.prompt)?;
        let ticket = self.next;
        self.next += 1;
        self.waiting.push_back((ticket, request));
        Ok(ticket)
    }

    /// Whether any text is waiting or being written.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.entering.is_some() || self.active() > 0
    }

    /// Texts that are being written.
    pub fn active(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// Bytes that keys and values take now.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes() + self.entering.as_ref().map_or(0, |entering| entering.cache.bytes())
    }

    /// One token of every text that is being written, after up to 128 tokens of the prompts of
    /// those that begin (512 where none is being written), so that nobody waits long for either.
    ///
    /// # Errors
    /// When a run fails: the texts that are being written are lost then.
    pub fn step(&mut self, listener: &mut BatchListener) -> Result<()> {
        let mut budget = if self.active() > 0 { PIECE } else { CHUNK };
        while budget > 0 && self.begin()? {
            budget -= self.read_prompt(budget, listener)?;
        }
        self.write(listener)
    }

    /// Takes steps until nothing is left to do.
    ///
    /// # Errors
    /// As [`step`](Batch::step).
    pub fn finish(&mut self, listener: &mut BatchListener) -> Result<()> {
        while self.is_busy() {
            self.step(listener)?;
        }
        Ok(())
    }

    /// Whether a prompt is being computed; if none is, and there is a place, the next one begins.
    fn begin(&mut self) -> Result<bool> {
        if self.entering.is_some() {
            return Ok(true);
        }
        if self.active() >= self.most {
            return Ok(false);
        }
        let cache = self.runner.cache()?;
        let Some((ticket, request)) = self.waiting.pop_front() else { return Ok(false) };
        let Request { prompt, sampling, limits } = request;
        let speed = Speed { prompt_tokens: prompt.len(), ..Speed::default() };
        let writer = Writer::new(self.runner.tokenizer, &prompt, limits, self.runner.context)?;
        let (sampler, began) = (Sampler::new(sampling), Instant::now());
        let text = Text { ticket, writer, sampler, speed, began };
        self.entering = Some(Entering { text, cache, done: 0 });
        Ok(true)
    }

    /// Computes at most `most` tokens of the prompt that is begun; gives how many.
    fn read_prompt(&mut self, most: usize, listener: &mut BatchListener) -> Result<usize> {
        let Some(mut entering) = self.entering.take() else { return Ok(most) };
        let (done, prompt) = (entering.done, entering.text.writer.text());
        let end = prompt.len().min(done + most);
        entering.cache.reserve(end - done, done)?;
        let mut logits = self.runner.run(&mut entering.cache, &[(done, &prompt[done..end])])?;
        let whole = end == prompt.len();
        entering.done = end;
        if !whole {
            self.entering = Some(entering);
            return Ok(end - done);
        }
        let Entering { mut text, cache, .. } = entering;
        text.speed.prompt_seconds = text.began.elapsed().as_secs_f64();
        text.began = Instant::now();
        if let Some(text) = text.advance(&mut logits, listener)? {
            self.place(text, &cache, end)?;
        }
        Ok(end - done)
    }

    /// Gives a text a place, and its keys and values with it.
    fn place(&mut self, text: Text<'m>, own: &Cache, tokens: usize) -> Result<()> {
        let place = match self.places.iter().position(Option::is_none) {
            Some(place) => place,
            None => {
                let place = self.places.len();
                self.places.resize_with((2 * place).clamp(1, self.most), || None);
                place
            }
        };
        self.reserve(Some((place, tokens)))?;
        self.cache.adopt(place, own, tokens)?;
        self.places[place] = Some(text);
        Ok(())
    }

    /// Room for one more token of every text, and of one with so many tokens that comes.
    fn reserve(&mut self, coming: Option<(usize, usize)>) -> Result<()> {
        let place = |(at, text): (usize, &Option<Text>)| match (coming, text) {
            (Some((place, tokens)), _) if place == at => Some(Place { from: None, tokens }),
            (_, text) => text.as_ref().map(|text| text.place(at)),
        };
        let places: Vec<_> = self.places.iter().enumerate().map(place).collect();
        self.cache.reserve_texts(1, &places)
    }

    /// One more token for every text.
    fn write(&mut self, listener: &mut BatchListener) -> Result<()> {
        self.close_ranks()?;
        if self.active() == 0 {
            return Ok(());
        }
        self.reserve(None)?;
        // The run takes the cache, and what was in it is lost should it fail.
        let places = std::mem::take(&mut self.places);
        let last = |text: &Text| {
            let tokens = text.writer.text();
            (tokens.len() - 1, [tokens.last().copied().unwrap_or(0)])
        };
        let tokens: Vec<_> =
            places.iter().map(|text| text.as_ref().map_or((0, [0]), last)).collect();
        let texts: Vec<(usize, &[u32])> =
            tokens.iter().map(|(at, token)| (*at, &token[..])).collect();
        let mut logits = self.runner.run(&mut self.cache, &texts)?;
        let width = logits.len() / texts.len().max(1);
        for (text, logits) in places.into_iter().zip(logits.chunks_exact_mut(width.max(1))) {
            self.places.push(match text {
                Some(text) => text.advance(logits, listener)?,
                None => None,
            });
        }
        Ok(())
    }

    /// Gives up free places, where they are half of all and nobody waits for them.
    fn close_ranks(&mut self) -> Result<()> {
        let active = self.active();
        let waited_for = !self.waiting.is_empty() || self.entering.is_some();
        if waited_for || 2 * active > self.places.len() {
            return Ok(());
        }
        let (mut kept, mut texts) = (Vec::with_capacity(active), Vec::with_capacity(active));
        for (place, text) in std::mem::take(&mut self.places).into_iter().enumerate() {
            let Some(text) = text else { continue };
            kept.push(Some(text.place(place)));
            texts.push(Some(text));
        }
        self.cache.reserve_texts(1, &kept)?;
        self.places = texts;
        Ok(())
    }
}

impl<'m> Text<'m> {
    /// Its place in the cache. (The last token is computed by the next run.)
    fn place(&self, at: usize) -> Place {
        Place { from: Some(at), tokens: self.writer.text().len() - 1 }
    }

    /// Chooses the next token and tells of it; `None` when the text has ended.
    fn advance(
        mut self,
        logits: &mut [f32],
        listener: &mut BatchListener,
    ) -> Result<Option<Text<'m>>> {
        let (piece, finish) = self.writer.advance(logits, &mut self.sampler)?;
        let wanted = piece.is_empty() || listener(self.ticket, Event::Text(&piece));
        let finish = match finish {
            None if wanted => return Ok(Some(self)),
            None => Finish::Cancelled,
            Some(finish) => finish,
        };
        let tokens = self.writer.into_new();
        let mut speed = self.speed;
        (speed.tokens, speed.seconds) = (tokens.len(), self.began.elapsed().as_secs_f64());
        listener(self.ticket, Event::End(Answer { tokens, finish, speed }));
        Ok(None)
    }
}
