//! Calls with bytes that no generated client would send.

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::tls::{SERVER_NAME, pki};

/// Passes messages through as they are.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(bytes.to_vec()))
    }
}

/// Calls `/{service}/{method}`.
pub async fn call(
    channel: Channel,
    method: &str,
    request: Request<Vec<u8>>,
) -> Result<Response<Vec<u8>>, Status> {
    let path = PathAndQuery::try_from(format!("/{method}")).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    grpc.unary(request, path, Bytes).await
}

/// Opens a server stream; its first message, if one comes before `wait` has passed.
pub async fn first_of_stream(
    channel: Channel,
    method: &str,
    request: Request<Vec<u8>>,
    wait: std::time::Duration,
) -> Result<Option<Vec<u8>>, Status> {
    let path = PathAndQuery::try_from(format!("/{method}")).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let mut stream = grpc
        .server_streaming(request, path, Bytes)
        .await?
        .into_inner();
    match tokio::time::timeout(wait, stream.message()).await {
        Ok(message) => message,
        Err(_quiet) => Ok(None),
    }
}

/// One gRPC request as bare HTTP/2, with headers that tonic's client would handle itself. The answer's message,
/// or its status.
pub async fn post(
    server: SocketAddr,
    method: &str,
    headers: &[(&str, &str)],
    message: &[u8],
) -> Result<Vec<u8>, Status> {
    let ca = reqwest::Certificate::from_pem(pki().ca_pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([ca])
        .build()
        .unwrap();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let url = format!("https://{SERVER_NAME}:{}/{method}", server.port());
    let mut request = client.post(url).body(body);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        request = request.header(name, value);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status);
    }
    let body = response.bytes().await.unwrap();
    Ok(body
        .get(5..)
        .expect("a message, since there is no status in the headers")
        .to_vec())
}
