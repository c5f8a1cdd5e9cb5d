import com.example.ledger.EntryDraft; // what the API's .proto file makes
import com.example.ledger.LedgerServiceGrpc;
import com.example.ledger.PostEntryRequest;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.grpc.CallCredentials;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** A partner's program: posts an entry for each account that it reads, with a token that it renews. */
public final class Partner {

    /** Puts a token on every call; gRPC asks for it on a thread that may wait. */
    static final class Tokens extends CallCredentials {
        private static final Metadata.Key<String> AUTHORIZATION =
                Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
        /** The life that a token must still have when it is sent. */
        private static final Duration AHEAD = Duration.ofMinutes(1);

        private final HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        private String token;
        private Instant end = Instant.MIN;

        @Override
        public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
            executor.execute(() -> {
                try {
                    Metadata headers = new Metadata();
                    headers.put(AUTHORIZATION, "Bearer " + current());
                    applier.apply(headers);
                } catch (IOException | RuntimeException error) {
                    applier.fail(Status.UNAVAILABLE.withDescription(error.getMessage()));
                }
            });
        }

        @Override
        public void thisUsesUnstableApi() {}

        /** Returns the token at hand, or another if it soon expires. */
        synchronized String current() throws IOException {
            if (token != null && Instant.now().plus(AHEAD).isBefore(end)) {
                return token;
            }
            try {
                fetch();
            } catch (IOException error) {
                if (token == null || Instant.now().isAfter(end)) {
                    throw error;
                }
            }
            return token;
        }

        /** Forgets a token that the API has refused, unless another has replaced it already. */
        synchronized void drop(String refused) {
            if (refused != null && refused.equals(token)) {
                token = null;
            }
        }

        synchronized String last() {
            return token;
        }

        private void fetch() throws IOException {
            String form = "grant_type=client_credentials&client_id=" + encoded("CLIENT_ID")
                    + "&client_secret=" + encoded("CLIENT_SECRET");
            HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("TOKEN_URL")))
                    .timeout(Duration.ofSeconds(10))
                    .header("content-type", "application/x-www-form-urlencoded")
                    .POST(HttpRequest.BodyPublishers.ofString(form))
                    .build();
            Instant asked = Instant.now();
            HttpResponse<String> response;
            try {
                response = http.send(request, HttpResponse.BodyHandlers.ofString());
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                throw new IOException("interrupted");
            }
            if (response.statusCode() != 200) {
                throw new IOException("no token: the issuer answered " + response.statusCode());
            }
            JsonObject answer = JsonParser.parseString(response.body()).getAsJsonObject();
            token = answer.get("access_token").getAsString();
            end = asked.plusSeconds(answer.get("expires_in").getAsLong());
        }

        private static String encoded(String variable) {
            return URLEncoder.encode(System.getenv(variable), StandardCharsets.UTF_8);
        }

        /** Makes a call, and repeats it once, with another token, if the API refuses the first one. */
        <T> T twice(Supplier<T> call) {
            String before = last();
            try {
                return call.get();
            } catch (StatusRuntimeException error) {
                if (error.getStatus().getCode() != Status.Code.UNAUTHENTICATED) {
                    throw error;
                }
                drop(before != null ? before : last());
                return call.get();
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder();
        String authorities = System.getenv("CA_FILE");
        if (authorities != null) { // only for an API whose certificate no public authority has signed
            tls.trustManager(new File(authorities));
        }
        Tokens tokens = new Tokens();
        ManagedChannel channel = Grpc.newChannelBuilder(System.getenv("API"), tls.build()).build();
        LedgerServiceGrpc.LedgerServiceBlockingStub ledger =
                LedgerServiceGrpc.newBlockingStub(channel).withCallCredentials(tokens);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                EntryDraft draft =
                        EntryDraft.newBuilder().setAccount(line).setAmount(1250).setCurrency("EUR").build();
                PostEntryRequest request = PostEntryRequest.newBuilder().setDraft(draft).build();
                String organization = tokens.twice(() ->
                        ledger.withDeadlineAfter(20, TimeUnit.SECONDS).postEntry(request).getEntry().getOrgId());
                System.out.println("posted for " + organization);
            }
        } catch (StatusRuntimeException error) {
            System.err.println(error.getStatus());
            System.exit(1);
        } finally {
            channel.shutdownNow();
        }
    }
}
