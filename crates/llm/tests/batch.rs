//! Texts written side by side are those that each request gets alone.

use fewbit_exec::{Mode, SessionOptions};
use fewbit_llm::{
    Answer, Batch, CacheType, CacheTypes, Event, Finish, Generation, Generator, GeneratorOptions,
    LanguageModel, Request, Sampler, Sampling,
};

fn open() -> Option<LanguageModel> {
    let Some(zoo) = std::env::var_os("FEWBIT_ZOO") else {
        eprintln!("skipped: FEWBIT_ZOO is not set");
        return None;
    };
    Some(LanguageModel::open(&std::path::Path::new(&zoo).join("stories260k")).unwrap())
}

fn options(threads: usize, cache: CacheType) -> GeneratorOptions {
    let session = SessionOptions::new(Mode::Integer).threads(threads);
    GeneratorOptions { session, context: 120, cache: CacheTypes::both(cache) }
}

/// Requests of every kind: greedy and drawn, with stop texts, short and until the context is full.
fn requests(model: &LanguageModel) -> Vec<Request> {
    let texts = [
        "Once upon a time",
        "Tom and Lily",
        "The big dog was sad because he had lost his ball in the park, and so",
        "One day",
        "Once upon a time, there was a little girl",
        "A",
        "Lily saw a red",
    ];
    let request = |(index, text): (usize, &&str)| Request {
        prompt: model.tokenizer().encode(text, true).unwrap(),
        sampling: match index % 2 {
            0 => Sampling::greedy(),
            _ => Sampling { seed: index as u64, repeat_penalty: 1.1, ..Sampling::default() },
        },
        limits: Generation {
            max_tokens: [40, 7, 0, 60, 25, 1, 33][index],
            stop: if index == 4 { vec!["named".to_string()] } else { Vec::new() },
            ignore_end: index == 2,
        },
    };
    texts.iter().enumerate().map(request).collect()
}

/// What a request gives: tokens, the end, and the text.
type Given = (Vec<u32>, Finish, String);

fn alone(model: &LanguageModel, request: &Request, options: &GeneratorOptions) -> Given {
    let mut generator = Generator::new(model, options).unwrap();
    let mut sampler = Sampler::new(request.sampling.clone());
    let mut text = String::new();
    let mut listener = |piece: &str| {
        text.push_str(piece);
        true
    };
    let (tokens, finish, _) =
        generator.generate(&request.prompt, &mut sampler, &request.limits, &mut listener).unwrap();
    (tokens, finish, text)
}

#[derive(Default)]
struct Heard {
    texts: Vec<String>,
    answers: Vec<Option<Answer>>,
    order: Vec<usize>,
}

impl Heard {
    fn of(count: usize) -> Heard {
        let (texts, answers) = (vec![String::new(); count], vec![None; count]);
        Heard { texts, answers, order: Vec::new() }
    }

    fn hear(&mut self, ticket: usize, event: Event) -> bool {
        match event {
            Event::Text(piece) => self.texts[ticket].push_str(piece),
            Event::End(answer) => {
                self.order.push(ticket);
                assert!(self.answers[ticket].replace(answer).is_none(), "ends once");
            }
        }
        true
    }

    fn given(self) -> Vec<Given> {
        let both = self.answers.into_iter().zip(self.texts);
        both.map(|(answer, text)| (answer.unwrap(), text))
            .map(|(answer, text)| (answer.tokens, answer.finish, text))
            .collect()
    }
}

#[test]
fn each_request_gets_what_it_would_get_alone() {
    let Some(model) = open() else { return };
    let requests = requests(&model);
    for cache in [CacheType::F32, CacheType::F16] {
        let one = options(1, cache);
        let expected: Vec<Given> = requests.iter().map(|r| alone(&model, r, &one)).collect();
        let finishes: Vec<Finish> = expected.iter().map(|(_, finish, _)| *finish).collect();
        assert!(finishes.contains(&Finish::Context) && finishes.contains(&Finish::Stop));
        for (most, late) in [(1, 0), (3, 0), (3, 4), (8, 6)] {
            let mut batch = Batch::new(&model, &options(2, cache), most).unwrap();
            let mut heard = Heard::of(requests.len());
            let (now, later) = requests.split_at(requests.len() - late);
            for request in now {
                batch.add(request.clone()).unwrap();
            }
            // The others come one by one, while texts are being written.
            for request in later {
                for _ in 0..3 {
                    batch.step(&mut |ticket, event| heard.hear(ticket, event)).unwrap();
                    assert!(batch.active() <= most);
                }
                batch.add(request.clone()).unwrap();
            }
            batch.finish(&mut |ticket, event| heard.hear(ticket, event)).unwrap();
            assert!(!batch.is_busy() && batch.active() == 0);
            if most > 1 && late == 0 {
                assert_ne!(heard.order, [0, 1, 2, 3, 4, 5, 6], "short texts end first");
            }
            assert_eq!(heard.given(), expected, "{most} at once, {late} late, {cache:?}");
        }
    }
}

#[test]
fn one_request_is_cancelled_and_the_others_go_on() {
    let Some(model) = open() else { return };
    let requests = requests(&model);
    let mut batch = Batch::new(&model, &options(1, CacheType::F32), 4).unwrap();
    for request in &requests[..2] {
        batch.add(request.clone()).unwrap();
    }
    let mut heard = Heard::of(2);
    batch
        .finish(&mut |ticket, event| {
            heard.hear(ticket, event);
            ticket != 0 || heard.texts[0].len() < 10
        })
        .unwrap();
    assert_eq!(heard.answers[0].as_ref().unwrap().finish, Finish::Cancelled);
    let (tokens, finish, text) = alone(&model, &requests[1], &options(1, CacheType::F32));
    let other = heard.answers[1].as_ref().unwrap();
    assert_eq!((&other.tokens, other.finish, &heard.texts[1]), (&tokens, finish, &text));
}

#[test]
fn what_cannot_be_continued_is_refused_at_once() {
    let Some(model) = open() else { return };
    let mut batch = Batch::new(&model, &options(1, CacheType::F32), 2).unwrap();
    let mut add = |prompt: Vec<u32>| {
        let (sampling, limits) = (Sampling::greedy(), Generation::default());
        batch.add(Request { prompt, sampling, limits }).map_err(|e| e.stable_code())
    };
    assert_eq!(add(Vec::new()), Err("FB-2602"));
    assert_eq!(add(vec![1; 121]), Err("FB-2603"));
    assert_eq!(add(vec![512]), Err("FB-3707"));
    assert_eq!(add(vec![1]), Ok(0));
}
