import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.SocketTimeoutException;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLPeerUnverifiedException;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * JSSE as client and server, one after the other, as lines on its input ask; tests/support/peers/commanded.py says how.
 *
 * Words of a request: role, port (client), count, protocols and suites (JSSE's names, between commas), identity (a PKCS #12
 * file) and its password, ca (a PEM file), demand (a server wants the client's certificate), renegotiate.  A client
 * resumes by itself from its second connection on.
 */
public class Handshakes {
    private static final int PATIENCE = 5000; // milliseconds, for every read
    private static final int PUMP = 100; // milliseconds that a read may take in which a renegotiation goes on
    private static final String[] CONVERSATION = {"hello\n", "x".repeat(20000) + "\n", "BYE\n"};

    private final Map<String, String> request;
    private final SSLContext context;

    private Handshakes(Map<String, String> request) throws Exception {
        this.request = request;
        context = SSLContext.getInstance("TLS", "SunJSSE");
        context.init(keys(), trust(), null);
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            Map<String, String> request = new HashMap<>();
            for (String word : line.split("\t")) {
                String[] pair = word.split("=", 2);
                request.put(pair[0], pair[1]);
            }
            new Handshakes(request).run();
        }
    }

    private KeyManager[] keys() throws Exception {
        if (!request.containsKey("identity")) {
            return null;
        }
        char[] password = request.get("password").toCharArray();
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream file = new FileInputStream(request.get("identity"))) {
            store.load(file, password);
        }
        KeyManagerFactory factory = KeyManagerFactory.getInstance("SunX509");
        factory.init(store, password);
        return factory.getKeyManagers();
    }

    private javax.net.ssl.TrustManager[] trust() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        try (InputStream file = new FileInputStream(request.get("ca"))) {
            for (var certificate : CertificateFactory.getInstance("X.509").generateCertificates(file)) {
                store.setCertificateEntry("ca" + store.size(), certificate);
            }
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance("SunX509");
        factory.init(store);
        return factory.getTrustManagers();
    }

    private void run() throws Exception {
        List<String> connections = new ArrayList<>();
        int count = Integer.parseInt(request.getOrDefault("count", "1"));
        if (request.get("role").equals("server")) {
            try (SSLServerSocket listener = listen()) {
                say("{\"port\": " + listener.getLocalPort() + "}");
                while (connections.size() < count) {
                    SSLSocket socket = (SSLSocket) listener.accept();
                    connections.add(new Conversation(socket, true).hold());
                }
            } catch (SocketTimeoutException late) {
                connections.add("{\"error\": \"nobody came\"}");
            }
        } else {
            while (connections.size() < count) {
                InetAddress host = InetAddress.getByName("127.0.0.1");
                int port = Integer.parseInt(request.get("port"));
                SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(host, port);
                socket.setEnabledProtocols(request.get("protocols").split(","));
                socket.setEnabledCipherSuites(request.get("suites").split(","));
                connections.add(new Conversation(socket, false).hold());
            }
        }
        say("{\"connections\": [" + String.join(", ", connections) + "]}");
    }

    private SSLServerSocket listen() throws Exception {
        InetAddress host = InetAddress.getByName("127.0.0.1");
        SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory().createServerSocket(0, 8, host);
        listener.setSoTimeout(PATIENCE);
        listener.setEnabledProtocols(request.get("protocols").split(","));
        listener.setEnabledCipherSuites(request.get("suites").split(","));
        listener.setNeedClientAuth(request.containsKey("demand"));
        return listener;
    }

    private static void say(String answer) {
        System.out.println(answer);
        System.out.flush();
    }

    /** One connection: handshake, conversation, goodbye. */
    private final class Conversation {
        private final SSLSocket socket;
        private final boolean server;
        private final Semaphore handshakes = new Semaphore(0); // completed
        private InputStream input;
        private OutputStream output;
        private String known = ""; // what is known of the session
        private int renegotiated;

        Conversation(SSLSocket socket, boolean server) {
            this.socket = socket;
            this.server = server;
        }

        String hold() {
            boolean ok = false;
            String error = "";
            try (socket) {
                socket.setSoTimeout(PATIENCE);
                socket.addHandshakeCompletedListener(event -> handshakes.release());
                long before = System.currentTimeMillis();
                socket.startHandshake();
                handshakes.tryAcquire(PATIENCE, TimeUnit.MILLISECONDS);
                boolean resumed = socket.getSession().getCreationTime() < before;
                input = socket.getInputStream();
                output = socket.getOutputStream();
                if (server) {
                    answer();
                } else {
                    converse();
                }
                known = describe(socket.getSession()) + ", \"resumed\": " + resumed;
                ok = true;
                socket.shutdownOutput();
                while (input.read() >= 0) {}
            } catch (Exception failure) {
                error = failure.toString().replace('"', '\'').replace('\\', '/').replace('\n', ' ');
            }
            String end = known.isEmpty() ? "" : ", " + known;
            return "{\"ok\": " + ok + ", \"renegotiated\": " + renegotiated + ", \"error\": \"" + error + "\"" + end + "}";
        }

        private void converse() throws Exception {
            for (int number = 0; number < CONVERSATION.length; number++) {
                if (number == 1 && request.containsKey("renegotiate")) {
                    socket.startHandshake();
                    pump();
                }
                output.write(CONVERSATION[number].getBytes(StandardCharsets.US_ASCII));
                output.flush();
                expect("ECHO " + CONVERSATION[number]);
            }
        }

        private void answer() throws Exception {
            for (int number = 0; number < CONVERSATION.length; number++) {
                expect(CONVERSATION[number]);
                if (number == 1 && request.containsKey("renegotiate")) {
                    socket.startHandshake(); // goes on while the next line is read
                }
                output.write(("ECHO " + CONVERSATION[number]).getBytes(StandardCharsets.US_ASCII));
                output.flush();
            }
            if (request.containsKey("renegotiate") && handshakes.tryAcquire(PATIENCE, TimeUnit.MILLISECONDS)) {
                renegotiated++;
            }
        }

        /** A client's renegotiation goes on in reads alone, and nothing may be written meanwhile. */
        private void pump() throws Exception {
            socket.setSoTimeout(PUMP);
            for (int waited = 0; waited < PATIENCE && !handshakes.tryAcquire(); waited += PUMP) {
                try {
                    if (input.read() >= 0) {
                        throw new IOException("data that nobody asked for");
                    }
                    throw new IOException("closed during renegotiation");
                } catch (SocketTimeoutException silence) {
                    continue;
                }
            }
            socket.setSoTimeout(PATIENCE);
            renegotiated++;
        }

        private void expect(String line) throws IOException {
            ByteArrayOutputStream read = new ByteArrayOutputStream();
            int next = 0;
            while (next != '\n' && (next = input.read()) >= 0) {
                read.write(next);
            }
            if (!read.toString(StandardCharsets.US_ASCII).equals(line)) {
                throw new IOException(next < 0 ? "closed early" : "not the line that was expected");
            }
        }

        private String describe(SSLSession session) {
            String peer = "";
            try {
                peer = ((X509Certificate) session.getPeerCertificates()[0]).getSubjectX500Principal().getName();
            } catch (SSLPeerUnverifiedException none) {
                peer = "";
            }
            return "\"version\": \"" + session.getProtocol() + "\", \"suite\": \"" + session.getCipherSuite() + "\", \"peer\": \"" + peer + "\"";
        }
    }
}
