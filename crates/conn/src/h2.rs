//! tmp
#![allow(missing_docs, clippy::all)]
use std::convert::Infallible; use std::io; use std::task::{Context,Poll}; use std::time::Duration;
use rhumb_base::failure::Failure; use rhumb_codec::{field::Fields, head::{RequestHead,ResponseHead}};
use crate::{Part, io::Io, input::Input};
pub struct Stream(Infallible);
impl Stream {
 pub fn poll_request_body(&mut self,_:&mut Context<'_>)->Poll<Result<Part<'_>,Failure>>{match self.0{}}
 pub fn poll_response_body(&mut self,_:&mut Context<'_>)->Poll<Result<Part<'_>,Failure>>{match self.0{}}
 pub fn poll_response(&mut self,_:&mut Context<'_>,_:&mut ResponseHead)->Poll<Result<(),Failure>>{match self.0{}}
 pub fn poll_closed(&mut self,_:&mut Context<'_>)->Poll<()>{match self.0{}}
 pub fn poll_ready(&mut self,_:&mut Context<'_>)->Poll<io::Result<()>>{match self.0{}}
 pub fn poll_flush(&mut self,_:&mut Context<'_>)->Poll<io::Result<()>>{match self.0{}}
 pub fn send_data(&mut self,_:&mut Context<'_>,_:&[u8])->io::Result<()>{match self.0{}}
 pub fn send_end(&mut self,_:Option<&Fields>){match self.0{}}
 pub fn send_response(&mut self,_:&ResponseHead){match self.0{}}
 pub fn abort(&mut self){match self.0{}}
 pub fn reset(&self)->Failure{match self.0{}}
}
pub fn is_preface(_:&[u8])->Option<bool>{Some(false)}
pub struct Config;
pub fn server_config(_:u32,_:usize)->Config{Config}
pub fn websocket_accept(_:&[u8])->String{String::new()}
pub struct Driver;
impl Driver { pub fn new(_:Io,_:Input,_:Config,_:Duration)->Self{Self} pub fn leave(&mut self){} pub fn error_code(&self)->Option<&'static str>{None}
 pub fn poll_serve(&mut self,_:&mut Context<'_>,_:impl FnMut(Stream,Box<RequestHead>))->Poll<()>{Poll::Ready(())} }
