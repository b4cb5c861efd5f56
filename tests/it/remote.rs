//! Sources and outputs by URL, against a small server of the test that speaks HTTP with ranges and the part of S3 that is used.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::support::{Place, finish};

/// Objects by path, e.g. `/bucket/folder/x.parquet`.
type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves `objects` until the process ends; returns the base URL.
fn serve(objects: &Objects) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let objects = Arc::clone(objects);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let objects = Arc::clone(&objects);
            std::thread::spawn(move || connection(stream, &objects));
        }
    });
    format!("http://{address}")
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    range: Option<(usize, Option<usize>)>,
    body: Vec<u8>,
}

fn connection(mut stream: TcpStream, objects: &Objects) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let request = read(&mut reader)?;
        let (status, headers, body) = answer(&request, objects);
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        if request.method != "HEAD" {
            stream.write_all(&body).ok()?;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|n| *n > 0)?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.replace("%2F", "/").replace("%3D", "="))
        })
        .collect();
    let (mut range, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(bytes) = header.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-')?;
            range = Some((from.parse().ok()?, to.parse().ok()));
        }
        if let Some(bytes) = header.strip_prefix("content-length:") {
            length = bytes.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path: path.replace("%3D", "="), query, range, body })
}

fn answer(request: &Request, objects: &Objects) -> (String, String, Vec<u8>) {
    const MODIFIED: &str = "Last-Modified: Tue, 01 Jan 2013 00:00:00 GMT\r\nETag: \"1\"\r\nAccept-Ranges: bytes\r\n";
    let mut objects = objects.lock().unwrap();
    let xml = |text: String| ("200 OK".to_owned(), String::new(), text.into_bytes());
    match request.method.as_str() {
        "GET" if request.query.contains_key("list-type") => {
            let bucket = format!("/{}/", request.path.trim_matches('/'));
            let prefix = format!("{bucket}{}", request.query.get("prefix").cloned().unwrap_or_default());
            let entries: String = objects
                .iter()
                .filter(|(path, _)| path.starts_with(&prefix))
                .map(|(path, body)| {
                    format!(
                        "<Contents><Key>{}</Key><LastModified>2013-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag>\
                         <Size>{}</Size></Contents>",
                        &path[bucket.len()..],
                        body.len()
                    )
                })
                .collect();
            xml(format!("<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"))
        }
        "POST" if request.query.contains_key("uploads") => {
            xml("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>".to_owned())
        }
        "POST" => {
            let parts: Vec<String> =
                objects.keys().filter(|k| k.starts_with(&format!("#{}#", request.path))).cloned().collect();
            let whole = parts.iter().filter_map(|k| objects.remove(k)).flatten().collect();
            objects.insert(request.path.clone(), whole);
            xml("<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>".to_owned())
        }
        "PUT" => {
            let key = match request.query.get("partNumber") {
                Some(number) => format!("#{}#{number:0>5}", request.path),
                None => request.path.clone(),
            };
            objects.insert(key, request.body.clone());
            ("200 OK".to_owned(), "ETag: \"1\"\r\n".to_owned(), Vec::new())
        }
        "DELETE" => {
            objects.remove(&request.path);
            ("204 No Content".to_owned(), String::new(), Vec::new())
        }
        _ => match (objects.get(&request.path), request.range) {
            (None, _) => ("404 Not Found".to_owned(), String::new(), Vec::new()),
            (Some(body), None) => ("200 OK".to_owned(), MODIFIED.to_owned(), body.clone()),
            (Some(body), Some((from, to))) => {
                let end = to.map_or(body.len(), |to| (to + 1).min(body.len()));
                let range = format!("Content-Range: bytes {from}-{}/{}\r\n{MODIFIED}", end - 1, body.len());
                ("206 Partial Content".to_owned(), range, body[from..end].to_vec())
            }
        },
    }
}

fn parquet(place: &Place) -> Vec<u8> {
    place.ok(&["sql", "-c", "COPY (SELECT value AS n FROM range(0, 1000)) TO 'n.parquet'"]);
    std::fs::read(place.path("n.parquet")).unwrap()
}

fn with_s3(mut command: Command, base: &str) -> Command {
    command
        .env("AWS_ENDPOINT", base)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_SKIP_SIGNATURE", "true")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false");
    command
}

#[test]
fn sources_over_http() {
    let place = Place::new();
    let objects = Objects::default();
    objects.lock().unwrap().insert("/d/n.parquet".to_owned(), parquet(&place));
    objects.lock().unwrap().insert("/d/k.csv".to_owned(), b"n,name\n1,one\n2,two\n".to_vec());
    let base = serve(&objects);
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\n\n[sources.n]\npath = \"${BASE}/d/n.parquet\"\n\n[sources.k]\npath = \"${BASE}/d/k.csv\"\n\n\
         [[step]]\nname = \"joined\"\nquery = \"SELECT n.n, k.name FROM n JOIN k ON n.n = k.n ORDER BY n.n\"\n\
         output = { path = \"out/joined.csv\" }\n",
    );
    let mut command = place.command(&["run", "p"]);
    command.env("BASE", &base);
    let said = finish(command);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(std::fs::read_to_string(place.path("p/out/joined.csv")).unwrap(), "n,name\n1,one\n2,two\n");
    let mut command = place.command(&["run", "p"]);
    command.env("BASE", format!("{base}/nowhere"));
    let said = finish(command);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("source `") && said.err.contains("hint"), "{}", said.err);
}

#[test]
fn sources_and_outputs_in_a_bucket() {
    let place = Place::new();
    let objects = Objects::default();
    let bytes = parquet(&place);
    for part in 0..3 {
        objects.lock().unwrap().insert(format!("/lake/in/day={part}/n.parquet"), bytes.clone());
    }
    let base = serve(&objects);
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\n\n[sources.n]\npath = \"s3://lake/in/\"\nformat = \"parquet\"\n\n\
         [[step]]\nname = \"days\"\nquery = \"SELECT day, count(*) AS n FROM n GROUP BY day ORDER BY day\"\n\
         output = { path = \"s3://lake/out/days.csv\" }\n",
    );
    let said = finish(with_s3(place.command(&["run", "p"]), &base));
    assert_eq!(said.code, 0, "{}", said.err);
    let written = objects.lock().unwrap().get("/lake/out/days.csv").cloned().unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), "day,n\n0,1000\n1,1000\n2,1000\n");
}
