# frozen_string_literal: true

require "bunny"
require "logger"
require "securerandom"
require "stringio"
require "timeout"

# Runs the cases one after another, each with its own connections and its own broker objects.
class Interop
  class Failure < StandardError; end

  # In seconds. A broker that never answers must not hold up the run for long.
  RUN_TIMEOUT = 50
  CASE_TIMEOUT = 15
  EVENT_TIMEOUT = 5

  @cases = {}
  class << self
    attr_reader :cases

    def test(name, &body)
      cases[name] = body
    end
  end

  def self.run_all(host, port)
    $stdout.sync = true
    passed = failed = 0
    deadline = now + RUN_TIMEOUT
    cases.each do |name, body|
      limit = [CASE_TIMEOUT, deadline - now].min
      reason = limit.positive? ? new(host, port, name).run(limit, body) : "no time left to run it"
      reason ? failed += 1 : passed += 1
      puts(reason ? "FAIL #{name}: #{reason}" : "ok #{name}")
    end
    puts "#{passed} passed, #{failed} failed"
    failed.zero?
  end

  def self.now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  attr_reader :log

  def initialize(host, port, case_name)
    @host = host
    @port = port
    @prefix = "interop.bunny.#{SecureRandom.hex(4)}.#{case_name}"
    @names = []
    @connections = []
    @log = StringIO.new
  end

  def run(limit, body)
    Timeout.timeout(limit) { instance_exec(&body) }
    nil
  rescue StandardError => e
    warn e.full_message(highlight: false), @log.string
    "#{e.class}: #{e.message.lines.first&.chomp}"
  ensure
    clean_up
  end

  # Recovery is off by default so that a connection the broker closes fails the case at once.
  def connect(options = {})
    defaults = { host: @host, port: @port, continuation_timeout: EVENT_TIMEOUT * 1000,
                 automatically_recover: false, recover_from_connection_close: false,
                 logger: Logger.new(@log, level: :warn) }
    connection = Bunny.new(defaults.merge(options))
    connection.start
    # A session that was refused would wait for a close-ok in vain, so it is not among those to be closed.
    @connections << connection
    connection
  end

  # A name no other run uses; whatever is declared under it is deleted after the case.
  def unique(suffix)
    "#{@prefix}.#{suffix}".tap { |name| @names << name }
  end

  def clean_up
    Timeout.timeout(EVENT_TIMEOUT) do
      @connections.each { |connection| connection.close rescue nil }
      connect.with_channel do |channel|
        @names.each do |name|
          channel.queue_delete(name)
          channel.exchange_delete(name)
        end
      end
      @connections.last.close
    end
  rescue StandardError => e
    warn "cleaning up after #{@prefix}: #{e.full_message(highlight: false)}"
  end

  def equal(expected, actual, what)
    return if expected == actual

    raise Failure, "#{what}: expected #{shorten(expected)}, got #{shorten(actual)}"
  end

  def check(condition, what)
    raise Failure, what unless condition
  end

  def raises(error_class, message)
    yield
  rescue error_class => e
    equal(message, e.message, error_class.name)
  else
    raise Failure, "expected #{error_class}: #{message}"
  end

  def eventually(what)
    deadline = Interop.now + EVENT_TIMEOUT
    until yield
      raise Failure, "not in time: #{what}" if Interop.now > deadline

      sleep 0.02
    end
  end

  Delivery = Struct.new(:info, :properties, :body) do
    def tag = info.delivery_tag
    def redelivered? = info.redelivered?
  end

  # Deliveries and other callbacks arrive on Bunny's threads; an inbox hands them to the case.
  class Inbox
    def initialize
      @queue = Thread::Queue.new
    end

    def <<(item)
      @queue << item
    end

    def take(count)
      Array.new(count) { Timeout.timeout(EVENT_TIMEOUT, Failure, "no event in time") { @queue.pop } }
    end

    def take_one = take(1).first

    def empty? = @queue.empty?
  end

  def subscribe(queue, options = { manual_ack: true })
    inbox = Inbox.new
    queue.subscribe(options) { |*delivery| inbox << Delivery.new(*delivery) }
    inbox
  end

  def ready(channel, queue_name)
    channel.queue_declare(queue_name, passive: true).message_count
  end

  def exists?(connection, kind, name)
    kind == :queue ? connection.queue_exists?(name) : connection.exchange_exists?(name)
  end

  # Everything that is ready in the queue, taken with basic.get.
  def drain(queue)
    bodies = []
    while (body = queue.pop.last)
      bodies << body
    end
    bodies
  end

  def bodies(deliveries) = deliveries.map(&:body)

  private

  def shorten(value)
    text = value.inspect
    text.length > 300 ? "#{text[0, 300]}... (#{text.length} characters)" : text
  end
end
