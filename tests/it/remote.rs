//! Sources by URL, from a small web server of the test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::support::Place;

/// Serves `files` by path until the process ends; understands HEAD and ranges.
fn serve(files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let files = Arc::new(files);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = Arc::clone(&files);
            std::thread::spawn(move || answer(stream, &files));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut request = String::new();
        reader.read_line(&mut request).ok().filter(|n| *n > 0)?;
        let mut range = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(bytes) = header.strip_prefix("range: bytes=") {
                let (from, to) = bytes.split_once('-')?;
                range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()));
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let common = "Last-Modified: Tue, 01 Jan 2013 00:00:00 GMT\r\nETag: \"1\"\r\nAccept-Ranges: bytes\r\n";
        let Some(body) = files.get(path) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        };
        let (status, part) = match range {
            Some((from, to)) => {
                let end = to.map_or(body.len(), |to| (to + 1).min(body.len()));
                let range = format!("Content-Range: bytes {from}-{}/{}\r\n", end - 1, body.len());
                (format!("206 Partial Content\r\n{range}"), &body[from..end])
            }
            None => ("200 OK\r\n".to_owned(), &body[..]),
        };
        let head = format!("HTTP/1.1 {status}{common}Content-Length: {}\r\n\r\n", part.len());
        stream.write_all(head.as_bytes()).ok()?;
        if method != "HEAD" {
            stream.write_all(part).ok()?;
        }
    }
}

#[test]
fn sources_over_http() {
    let place = Place::new();
    place.ok(&["sql", "-c", "COPY (SELECT value AS n FROM range(0, 1000)) TO 'n.parquet'"]);
    let files = BTreeMap::from([
        ("/d/n.parquet".to_owned(), std::fs::read(place.path("n.parquet")).unwrap()),
        ("/d/k.csv".to_owned(), b"n,name\n1,one\n2,two\n".to_vec()),
    ]);
    let base = serve(files);
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\n\n[sources.n]\npath = \"${BASE}/d/n.parquet\"\n\n[sources.k]\npath = \"${BASE}/d/k.csv\"\n\n\
         [[step]]\nname = \"joined\"\nquery = \"SELECT n.n, k.name FROM n JOIN k ON n.n = k.n\"\n\
         output = { path = \"out/joined.csv\" }\n",
    );
    let mut command = place.command(&["run", "p"]);
    command.env("BASE", &base);
    let said = crate::support::finish(command);
    assert_eq!(said.code, 0, "{}", said.err);
    let mut lines: Vec<String> =
        std::fs::read_to_string(place.path("p/out/joined.csv")).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["1,one", "2,two", "n,name"]);
    let mut command = place.command(&["run", "p"]);
    command.env("BASE", format!("{base}/nowhere"));
    let said = crate::support::finish(command);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("source `") && said.err.contains("hint"), "{}", said.err);
}
