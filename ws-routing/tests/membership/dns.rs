//! The DNS, asked of a real nameserver over UDP and TCP that answers as it is told.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{SOA, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::Instant,
};
use ws_routing::membership::{self, Dns, FollowOptions, Nameserver, Source, Update};

const NAME: &str = "ws.chat.test.";

#[tokio::test]
async fn both_address_families_are_members_and_one_that_fails_keeps_its_nodes() {
    let server = Server::start().await;
    server.says(NAME, RecordType::A, Reply::Records(vec![a(1), a(2)], 0));
    server.says(NAME, RecordType::AAAA, Reply::Records(vec![aaaa(1)], 0));
    let mut source = server.source();
    assert_eq!(next(&mut source).await, Ok("10.0.0.1:7400 10.0.0.2:7400 [fd00::1]:7400".into()));
    server.says(NAME, RecordType::AAAA, Reply::Failure);
    server.says(NAME, RecordType::A, Reply::Records(vec![a(1)], 0));
    assert_eq!(
        next(&mut source).await,
        Ok("10.0.0.1:7400 10.0.0.2:7400 [fd00::1]:7400".into()),
        "missed once"
    );
    assert_eq!(next(&mut source).await, Ok("10.0.0.1:7400 [fd00::1]:7400".into()), "missed twice");
}

#[tokio::test]
async fn a_name_that_goes_and_comes_leaves_after_two_answers() {
    let server = Server::start().await;
    let mut source = server.source();
    assert_eq!(next(&mut source).await, Ok(String::new()), "no such name is an answer");
    server.says(NAME, RecordType::A, Reply::Records(vec![a(1)], 0));
    assert_eq!(next(&mut source).await, Ok("10.0.0.1:7400".into()));
    server.says(NAME, RecordType::A, Reply::Nothing);
    assert_eq!(next(&mut source).await, Ok("10.0.0.1:7400".into()));
    assert_eq!(next(&mut source).await, Ok(String::new()));
}

#[tokio::test]
async fn a_ttl_of_zero_is_asked_for_once_a_second_and_longer_ones_are_obeyed() {
    let server = Server::start().await;
    server.says(NAME, RecordType::A, Reply::Records(vec![a(1)], 0));
    let mut source = server.source();
    let begin = Instant::now();
    for _ in 0..3 {
        next(&mut source).await.unwrap();
    }
    assert!(begin.elapsed() >= Duration::from_secs(2), "asked three times within {:?}", begin.elapsed());
    assert_eq!(server.asked(), 3 * 2, "one question for each family");

    server.says(NAME, RecordType::A, Reply::Records(vec![a(1)], 2));
    next(&mut source).await.unwrap();
    let begin = Instant::now();
    next(&mut source).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(2), "asked again after {:?}", begin.elapsed());
}

#[tokio::test]
async fn an_answer_that_was_cut_short_is_asked_for_over_tcp() {
    let server = Server::start().await;
    let many = (1..=200).map(a).collect();
    server.says(NAME, RecordType::A, Reply::Truncated(many));
    let nodes = next(&mut server.source()).await.unwrap();
    assert_eq!(nodes.split(' ').count(), 200);
    assert!(server.over_tcp() > 0);
}

#[tokio::test]
async fn failure_and_silence_keep_the_view_and_end() {
    let server = Server::start().await;
    server.says(NAME, RecordType::A, Reply::Records(vec![a(1)], 0));
    let (writer, mut view) = membership::channel(0);
    tokio::spawn(membership::follow(server.source(), writer, FollowOptions::default()));
    let before = view.changed().await.unwrap();

    for trouble in [Reply::Failure, Reply::Silence] {
        server.says(NAME, RecordType::A, trouble.clone());
        server.says(NAME, RecordType::AAAA, trouble.clone());
        let asked = server.asked();
        server.wait_asked(asked + 4).await;
        assert_eq!(view.load(), before, "{trouble:?}");
        assert!(view.age() > Duration::from_secs(1), "{trouble:?}: nobody confirmed the members");
    }
    server.says(NAME, RecordType::AAAA, Reply::Nothing);
    server.says(NAME, RecordType::A, Reply::Records(vec![a(1), a(2)], 0));
    let after = tokio::time::timeout(Duration::from_secs(60), view.changed()).await.unwrap().unwrap();
    assert_eq!(after.nodes().len(), 2);
}

#[tokio::test]
async fn a_failure_is_told_as_an_error_that_names_the_name() {
    let server = Server::start().await;
    server.says(NAME, RecordType::A, Reply::Failure);
    server.says(NAME, RecordType::AAAA, Reply::Failure);
    let error = next(&mut server.source()).await.unwrap_err();
    assert!(error.starts_with("cannot resolve ws.chat.test.: "), "{error}");
}

#[tokio::test]
async fn srv_records_name_the_ports() {
    let server = Server::start().await;
    let name = "_ws._tcp.chat.test.";
    let srv = |port, target: &str| RData::SRV(SRV::new(0, 33, port, Name::from_ascii(target).unwrap()));
    server.says(
        name,
        RecordType::SRV,
        Reply::Records(vec![srv(1, "a.test."), srv(2, "b.test."), srv(9, "c.test.")], 0),
    );
    server.says("a.test.", RecordType::A, Reply::Records(vec![a(1)], 0));
    server.says("b.test.", RecordType::A, Reply::Records(vec![a(2)], 0));
    server.says("b.test.", RecordType::AAAA, Reply::Records(vec![aaaa(2)], 0));
    let mut source = Dns::services(name, Nameserver::At(server.addr)).unwrap();
    let all = "10.0.0.1:1 10.0.0.2:2 [fd00::2]:2";
    assert_eq!(next(&mut source).await, Ok(all.into()));
    server.says("a.test.", RecordType::A, Reply::Failure);
    server.says("a.test.", RecordType::AAAA, Reply::Failure);
    for _ in 0..2 {
        assert_eq!(next(&mut source).await, Ok(all.into()), "nothing is known of one target");
    }
}

fn a(host: u8) -> RData {
    RData::A(Ipv4Addr::new(10, 0, 0, host).into())
}

fn aaaa(host: u16) -> RData {
    RData::AAAA(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host).into())
}

async fn next(source: &mut Dns) -> Result<String, String> {
    match source.next().await.unwrap() {
        Ok(Update::Reset(nodes)) => Ok(nodes.iter().map(|n| n.id.to_string()).collect::<Vec<_>>().join(" ")),
        Ok(other) => Err(format!("unexpected {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Clone, Debug)]
enum Reply {
    /// With a TTL in seconds.
    Records(Vec<RData>, u32),
    /// Over UDP none of them, and the mark that there are more.
    Truncated(Vec<RData>),
    /// There is no such name.
    Nothing,
    Failure,
    Silence,
}

/// What the nameserver says, and what it was asked.
#[derive(Default)]
struct Zone {
    replies: Mutex<HashMap<(Name, RecordType), Reply>>,
    udp: AtomicUsize,
    tcp: AtomicUsize,
}

impl Zone {
    fn answer(&self, question: &[u8], udp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).unwrap();
        let query = question.queries[0].clone();
        if udp { &self.udp } else { &self.tcp }.fetch_add(1, Ordering::Relaxed);
        let reply = self.replies.lock().unwrap().get(&(query.name().clone(), query.query_type())).cloned();
        let mut message = Message::response(question.metadata.id, OpCode::Query);
        message.add_query(query.clone());
        let (records, ttl) = match reply.unwrap_or(Reply::Nothing) {
            Reply::Truncated(records) if !udp => (records, 0),
            Reply::Records(records, ttl) => (records, ttl),
            Reply::Silence => return None,
            other => {
                Self::refuse(&mut message, &other, query.name());
                (Vec::new(), 0)
            }
        };
        message
            .add_answers(records.into_iter().map(|data| Record::from_rdata(query.name().clone(), ttl, data)));
        Some(message.to_vec().unwrap())
    }

    fn refuse(message: &mut Message, reply: &Reply, name: &Name) {
        match reply {
            Reply::Truncated(_) => message.metadata.truncation = true,
            Reply::Failure => message.metadata.response_code = ResponseCode::ServFail,
            _ => {
                message.metadata.response_code = ResponseCode::NXDomain;
                let soa = RData::SOA(SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 0));
                message.add_authority(Record::from_rdata(name.clone(), 0, soa));
            }
        }
    }
}

struct Server {
    addr: SocketAddr,
    zone: Arc<Zone>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (addr, zone, mut tasks) = (udp.local_addr().unwrap(), Arc::new(Zone::default()), JoinSet::new());
        tasks.spawn(serve_udp(udp, zone.clone()));
        tasks.spawn(serve_tcp(tcp, zone.clone()));
        Self { addr, zone, _tasks: tasks }
    }

    fn says(&self, name: &str, kind: RecordType, reply: Reply) {
        self.zone.replies.lock().unwrap().insert((Name::from_ascii(name).unwrap(), kind), reply);
    }

    fn source(&self) -> Dns {
        Dns::addresses(NAME, 7400, Nameserver::At(self.addr)).unwrap()
    }

    fn over_tcp(&self) -> usize {
        self.zone.tcp.load(Ordering::Relaxed)
    }

    fn asked(&self) -> usize {
        self.zone.udp.load(Ordering::Relaxed) + self.over_tcp()
    }

    async fn wait_asked(&self, times: usize) {
        let asked = async {
            while self.asked() < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it is not asked again");
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(answer) = zone.answer(&buffer[..length], true) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let zone = zone.clone();
        connections.spawn(async move { serve_connection(stream, &zone).await.unwrap_or_default() });
    }
}

async fn serve_connection(mut stream: TcpStream, zone: &Zone) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        if let Some(answer) = zone.answer(&question, false) {
            stream.write_u16(answer.len().try_into().unwrap()).await?;
            stream.write_all(&answer).await?;
        }
    }
}
