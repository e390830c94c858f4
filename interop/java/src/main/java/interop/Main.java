package interop;

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs every case against the broker at HOST PORT and reports one line per case. */
public final class Main {
    private static final Duration CASE_LIMIT = Duration.ofSeconds(20);
    private static final Duration TOTAL_LIMIT = Duration.ofSeconds(50);

    private static final Map<String, Case> CASES = new LinkedHashMap<>();

    static {
        CASES.put("publish_confirms", Publishing::publishConfirms);
        CASES.put("consume_acks", Consuming::consumeAcks);
        CASES.put("prefetch", Consuming::prefetch);
        CASES.put("get", Consuming::get);
        CASES.put("reject_requeue", Consuming::rejectRequeue);
        CASES.put("returns", Publishing::returns);
        CASES.put("exclusive_auto_delete", Topology::exclusiveAutoDelete);
        CASES.put("tables", Content::tables);
        CASES.put("exchanges", Topology::exchanges);
        CASES.put("large_message", Content::largeMessage);
        CASES.put("errors", Failures::errors);
        CASES.put("transactions", Publishing::transactions);
        CASES.put("reconnect", Failures::reconnect);
        CASES.put("tutorials", Tutorials::all);
    }

    private Main() {}

    public static void main(String[] args) {
        if (args.length != 2) {
            System.err.println("usage: run HOST PORT");
            System.exit(2);
        }
        String host = args[0];
        int port = Integer.parseInt(args[1]);
        // Replies hold whatever bytes the broker chose, so the output must not depend on the locale.
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);

        long end = System.nanoTime() + TOTAL_LIMIT.toNanos();
        int passed = 0;
        int failed = 0;
        for (Map.Entry<String, Case> entry : CASES.entrySet()) {
            long limit = Math.min(CASE_LIMIT.toNanos(), end - System.nanoTime());
            String failure = runCase(entry.getKey(), entry.getValue(), host, port, limit);
            if (failure == null) {
                passed++;
                out.println("ok " + entry.getKey());
            } else {
                failed++;
                out.println("FAIL " + entry.getKey() + ": " + failure.replaceAll("\\s*\\R\\s*", " "));
            }
        }
        out.println(passed + " passed, " + failed + " failed");
        // The client's threads of a case that timed out may still be waiting.
        System.exit(failed == 0 ? 0 : 1);
    }

    /** Returns null if the case passed, else the reason why it did not. */
    private static String runCase(String name, Case body, String host, int port, long limitNanos) {
        ExecutorService executor = Executors.newSingleThreadExecutor(task -> {
            Thread thread = new Thread(task, name);
            thread.setDaemon(true);
            return thread;
        });
        Future<?> result = executor.submit(() -> {
            try (Scope scope = new Scope(host, port, name)) {
                body.run(scope);
            }
            return null;
        });
        try {
            result.get(limitNanos, TimeUnit.NANOSECONDS);
            return null;
        } catch (TimeoutException e) {
            return "not done within its time limit";
        } catch (ExecutionException e) {
            e.getCause().printStackTrace();
            return describe(e.getCause());
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        } finally {
            executor.shutdownNow();
        }
    }

    /** An IOException of the client often has no message of its own; the cause tells what the broker said. */
    private static String describe(Throwable failure) {
        if (failure instanceof AssertionError) {
            return failure.getMessage();
        }
        StringBuilder text = new StringBuilder(failure.toString());
        for (Throwable cause = failure.getCause(); cause != null; cause = cause.getCause()) {
            text.append(" / ").append(cause);
        }
        return text.toString();
    }

    interface Case {
        void run(Scope scope) throws Exception;
    }
}
