// A peer to compare with: the ext_authz server that somebody writes in Go in an afternoon, with a cache of tokens.
//
// It verifies RS256 with the standard library, checks issuer, audience and times, and keeps the answer to each good token
// until the token expires. It has no policy, order, key rotation, log or metric: what it saves by that is in its favour.
package main

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"example.com/peer/envoy" // what protos/authz/envoy/v3/external_auth.proto makes
)

// How many tokens are remembered at the most.
const most = 100_000

var (
	errMalformed = errors.New("malformed token")
	errUntrusted = errors.New("untrusted token")
)

type claims struct {
	Issuer       string          `json:"iss"`
	Audience     json.RawMessage `json:"aud"`
	Expires      int64           `json:"exp"`
	NotBefore    int64           `json:"nbf"`
	Client       string          `json:"client_id"`
	Organization string          `json:"org_id"`
	Scope        string          `json:"scope"`
}

type known struct {
	expires int64
	answer  *envoy.CheckResponse
}

type server struct {
	issuer, audience string
	keys             map[string]*rsa.PublicKey
	mutex            sync.RWMutex
	tokens           map[[sha256.Size]byte]known
}

func (s *server) check(question *envoy.CheckRequest) *envoy.CheckResponse {
	header := question.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]
	if !strings.HasPrefix(header, "Bearer ") {
		return denied("no token")
	}
	token, now := header[len("Bearer "):], time.Now().Unix()
	digest := sha256.Sum256([]byte(token))
	s.mutex.RLock()
	found, ok := s.tokens[digest]
	s.mutex.RUnlock()
	if ok && now < found.expires {
		return found.answer
	}
	caller, err := s.verify(token, now)
	if err != nil {
		return denied(err.Error())
	}
	answer := allowed(caller)
	s.remember(digest, known{caller.Expires, answer})
	return answer
}

func (s *server) remember(digest [sha256.Size]byte, found known) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.tokens) >= most {
		for any := range s.tokens {
			delete(s.tokens, any)
			break
		}
	}
	s.tokens[digest] = found
}

func (s *server) verify(token string, now int64) (*claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errMalformed
	}
	var header struct{ Alg, Kid string }
	var caller claims
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || decode(parts[0], &header) != nil || decode(parts[1], &caller) != nil {
		return nil, errMalformed
	}
	key := s.keys[header.Kid]
	if header.Alg != "RS256" || key == nil {
		return nil, errUntrusted
	}
	digest := sha256.Sum256([]byte(token[:len(parts[0])+1+len(parts[1])]))
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) != nil {
		return nil, errUntrusted
	}
	if caller.Issuer != s.issuer || !s.isFor(caller.Audience) || caller.Organization == "" {
		return nil, errUntrusted
	}
	if now >= caller.Expires || now < caller.NotBefore {
		return nil, errUntrusted
	}
	return &caller, nil
}

func (s *server) isFor(audience json.RawMessage) bool {
	var one string
	if json.Unmarshal(audience, &one) == nil {
		return one == s.audience
	}
	var several []string
	if json.Unmarshal(audience, &several) != nil {
		return false
	}
	for _, each := range several {
		if each == s.audience {
			return true
		}
	}
	return false
}

func decode(part string, into interface{}) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func allowed(caller *claims) *envoy.CheckResponse {
	ok := &envoy.OkHttpResponse{HeadersToRemove: []string{"authorization"}}
	for name, value := range map[string]string{
		"x-org-id": caller.Organization, "x-client-id": caller.Client, "x-scopes": caller.Scope,
	} {
		ok.Headers = append(ok.Headers, &envoy.HeaderValueOption{
			Header:       &envoy.HeaderValue{Key: name, Value: value},
			AppendAction: envoy.HeaderValueOption_HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return &envoy.CheckResponse{
		Status: &envoy.Status{}, HttpResponse: &envoy.CheckResponse_OkResponse{OkResponse: ok},
	}
}

func denied(why string) *envoy.CheckResponse {
	const unauthenticated = 16
	refusal := &envoy.DeniedHttpResponse{
		Status: &envoy.HttpStatus{Code: envoy.HttpStatusCode_HTTP_STATUS_CODE_UNAUTHORIZED}, Body: why,
	}
	return &envoy.CheckResponse{
		Status:       &envoy.Status{Code: unauthenticated, Message: why},
		HttpResponse: &envoy.CheckResponse_DeniedResponse{DeniedResponse: refusal},
	}
}

// keysOf reads a JWKS of RSA keys.
func keysOf(file string) map[string]*rsa.PublicKey {
	text, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	var set struct {
		Keys []struct{ Kid, N, E string }
	}
	if err := json.Unmarshal(text, &set); err != nil {
		log.Fatal(err)
	}
	keys := map[string]*rsa.PublicKey{}
	for _, key := range set.Keys {
		keys[key.Kid] = &rsa.PublicKey{N: number(key.N), E: int(number(key.E).Int64())}
	}
	return keys
}

func number(text string) *big.Int {
	bytes, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		log.Fatal(err)
	}
	return new(big.Int).SetBytes(bytes)
}

// describe says by hand what a generator would make, for the messages are in a package without the service.
func describe() *grpc.ServiceDesc {
	check := func(it interface{}, ctx context.Context, read func(interface{}) error, _ grpc.UnaryServerInterceptor) (
		interface{}, error) {
		question := new(envoy.CheckRequest)
		if err := read(question); err != nil {
			return nil, err
		}
		return it.(*server).check(question), nil
	}
	return &grpc.ServiceDesc{
		ServiceName: "envoy.service.auth.v3.Authorization",
		HandlerType: (*interface{})(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: check}},
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:9191", "where to listen")
	jwks := flag.String("jwks", "", "a file of keys")
	issuer := flag.String("issuer", "", "the issuer of tokens")
	audience := flag.String("audience", "", "the audience of tokens")
	flag.Parse()
	it := &server{
		issuer: *issuer, audience: *audience, keys: keysOf(*jwks), tokens: map[[sha256.Size]byte]known{},
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	serving := grpc.NewServer()
	serving.RegisterService(describe(), it)
	log.Fatal(serving.Serve(listener))
}
